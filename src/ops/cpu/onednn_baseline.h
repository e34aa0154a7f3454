// oneDNN used in the ordinary way, one product at a time: the baseline that benchmarks compare our kernels with.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensor/tensor.h"

namespace eps::ops {

// y = x * W^T with prepacked weights and a primitive of fixed shape for each m, as a careful user of oneDNN would do.
//
// Threads one caller at a time
// Cost    the first run with a given m creates its primitive (up to a millisecond), so warm up before timing
class OneDnnBaseline {
 public:
  // `dtype` is the type of x and of the packed weights: kF32 or kBF16. `weights` [n, k] have the same type. Each
  // product is shared by `num_threads` OpenMP threads.
  OneDnnBaseline(DType dtype, const TensorView& weights, int num_threads);
  ~OneDnnBaseline();
  OneDnnBaseline(const OneDnnBaseline&) = delete;
  OneDnnBaseline& operator=(const OneDnnBaseline&) = delete;

  // x [m, k] and y [m, n] are dense. For each m, the weights are packed in the layout that its primitive prefers.
  void run(int64_t m, const void* x, float* y);

  // The name of the oneDNN implementation that products with m rows use.
  std::string implementation(int64_t m);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eps::ops
