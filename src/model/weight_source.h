// Sources of weights: a checkpoint, or random numbers of the right shapes.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arch/model_spec.h"
#include "arch/weight_names.h"
#include "epsmoe/stop.h"
#include "io/checkpoint.h"
#include "model/stored_names.h"
#include "tensor/tensor.h"

namespace eps::model {

// Threads  every method may be called from any thread
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool has(const arch::StoredTensor& weight) const = 0;
  // Returns a weight in memory of the source, aligned for every kernel. The view is valid until the weight is released
  // or the source is destroyed. A weight that is requested again before that is not read again.
  //
  // Errors  kInput: missing, of another shape or of an unsupported dtype; kResource: its file has changed since the
  //         checkpoint was opened
  virtual TensorView get(const arch::StoredTensor& weight, const Shape& shape) = 0;
  virtual void release(const arch::StoredTensor& weight) = 0;
  // Whether get() reads a slice of this weight (arch::slice_of) without reading the whole of it.
  virtual bool reads_slices(const arch::StoredTensor& /*weight*/) const { return false; }
  // Frees memory that was kept for reuse. get() still works afterwards, but has to allocate.
  virtual void end_loading() = 0;
};

// Weights of `checkpoint`, which must outlive the source, with names translated by `names`. Each weight is read when it
// is requested, into the memory of a released weight if possible. Matrices in e4m3 are unpacked to bf16.
std::unique_ptr<WeightSource> make_checkpoint_source(const io::Checkpoint& checkpoint, StoredNames names,
                                                     std::optional<arch::Fp8Blocks> fp8_blocks = {});

// Reproducible random bf16 weights, approximately normal with standard deviation 0.02 (norms: 1). The values depend
// only on the name, not on the number of threads (0: the usable cores, up to 16). Errors  get() throws kInterrupted
// once `stop` is set
std::unique_ptr<WeightSource> make_dummy_source(int num_threads = 0, StopToken stop = {});

}  // namespace eps::model
