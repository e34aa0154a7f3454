// oneDNN called the plain way, one product at a time: what benchmarks compare our kernels with.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensor/tensor.h"

namespace eps {

// y = x * W^T with prepacked weights and one fixed-shape primitive for each m, as a careful user of oneDNN would do.
//
// Threads one caller at a time
// Cost    the first run of an m creates its primitive (up to a millisecond): warm up before timing
class OneDnnBaseline {
 public:
  // `dtype`: kF32 or kBF16, of x and of the packed weights. `weights` [n, k] of the same dtype.
  // `num_threads` OpenMP threads share each product.
  OneDnnBaseline(DType dtype, const TensorView& weights, int num_threads);
  ~OneDnnBaseline();
  OneDnnBaseline(const OneDnnBaseline&) = delete;
  OneDnnBaseline& operator=(const OneDnnBaseline&) = delete;

  // x [m, k] and y [m, n], dense. Each m keeps weights in the layout its primitive asks for.
  void run(int64_t m, const void* x, float* y);

  // oneDNN's name for the implementation that m rows run on.
  std::string implementation(int64_t m);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eps
