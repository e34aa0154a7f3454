// Times the GEMMs of a profile: dense and grouped calls by rows, shapes and numbers of groups.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "measure/repeated_timing.h"
#include "measure/tune.h"

namespace eps::measure {

// Weights of one shape, with memory for inputs and outputs. The weights are used in turn, and they are as many as a
// model reads between two uses of the same one (GemmShape::rotation_bytes), so that they are read from the same level
// of the memory hierarchy as in the model.
class GemmBench {
 public:
  // Creates at least `least_weights` weights.
  GemmBench(ops::OpSet& ops, const GemmShape& shape, DType weight_dtype, int64_t max_rows, size_t least_weights = 2);

  // Runs one call with `groups` different weights, at most num_weights(), with `rows` rows for each.
  void run(int64_t rows, int groups);
  int64_t max_rows() const { return x_.dim(0); }
  int num_weights() const { return static_cast<int>(weights_.size()); }

 private:
  ops::OpSet& ops_;
  std::unique_ptr<ops::WeightPool> pool_;  // outlives the weights in it
  std::vector<std::unique_ptr<ops::LinearWeight>> weights_;
  size_t next_ = 0;
  int64_t next_row_ = 0;
  Buffer x_memory_;
  Buffer y_memory_;
  MutableTensorView x_;  // [max_rows, k] compute dtype
  MutableTensorView y_;  // [max_rows, n] act
};

// `begin_step` is called before each shape and kind: twice for expert shapes, once for shared ones.
std::vector<plan::GemmProfile> measure_gemms(ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options,
                                             DType weight_dtype,
                                             const std::function<void(const std::string&)>& begin_step);

}  // namespace eps::measure
