// Where weights come from: a checkpoint, or random numbers of the right shapes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "tensor/tensor.h"

namespace eps {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool has(const std::string& name) const = 0;
  // The view is good until it is released, or for as long as the source lives.
  // Errors  kInput: missing or misshaped
  virtual TensorView get(const std::string& name, const Shape& shape) = 0;
  virtual void release(const std::string& name) = 0;
  // Weights there are that nobody has asked for.
  virtual std::vector<std::string> unused() const = 0;
  // What all weights take; 0 when unknown.
  virtual uint64_t total_bytes() const = 0;
};

// Weights of `checkpoint`, which must outlive the source.
std::unique_ptr<WeightSource> make_checkpoint_source(const Checkpoint& checkpoint);

// Repeatable random bf16 weights, normal-like with standard deviation 0.02 (norms: 1). Each name has its own values,
// the same for every number of threads. (0: the usable cores, up to 16)
std::unique_ptr<WeightSource> make_dummy_source(int num_threads = 0);

}  // namespace eps
