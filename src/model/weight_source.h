// Where weights come from: a checkpoint, or random numbers of the right shapes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "epsmoe/stop.h"
#include "io/checkpoint.h"
#include "model/stored_names.h"
#include "tensor/tensor.h"

namespace eps {

// Threads every method from any thread
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool has(const std::string& name) const = 0;
  // In memory of the source, aligned for every kernel. The view is good until it is released, or for as long as the
  // source lives; a weight that is asked for again before that is read once.
  //
  // Errors  kInput: missing, misshaped, or of a dtype that this program does not have; kResource: its file was changed
  //         since the checkpoint was opened
  virtual TensorView get(const std::string& name, const Shape& shape) = 0;
  virtual void release(const std::string& name) = 0;
  // Frees memory that was kept for the next weight. More may be asked for, only slower.
  virtual void end_loading() = 0;
};

// Weights of `checkpoint`, which must outlive the source, under the names that `names` translates. Each is read when it
// is asked for, into memory that released weights left behind.
std::unique_ptr<WeightSource> make_checkpoint_source(const Checkpoint& checkpoint, StoredNames names);

// Repeatable random bf16 weights, normal-like with standard deviation 0.02 (norms: 1). Each name has its own values,
// the same for every number of threads. (0: the usable cores, up to 16)
// Errors  kInterrupted, of get(), when `stop` asks for it
std::unique_ptr<WeightSource> make_dummy_source(int num_threads = 0, StopToken stop = {});

}  // namespace eps
