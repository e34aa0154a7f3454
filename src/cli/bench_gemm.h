// The baseline of benchmarks: one product at a time through oneDNN, as a careful user would call it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace eps::cli {

// y [m, n] f32 = x [m, k] · Wᵀ with weights W packed beforehand.
// Threads one caller at a time
// Cost    the first run of an m makes its primitive
class BenchGemm {
 public:
  virtual ~BenchGemm() = default;
  virtual void run(int64_t m, const void* x, float* y) = 0;
  // oneDNN's name for what m rows run on, e.g. "brg:avx512_core_amx_bf16".
  virtual std::string implementation(int64_t m) = 0;
};

// `weights` [n, k], f32 or bf16, which is also the type of x; copied. `num_threads` share each product.
std::unique_ptr<BenchGemm> make_bench_gemm(const TensorView& weights, int num_threads);

// The limit that rates are given in percent of: the best rate seen of square oneDNN products.
class GemmLimit {
 public:
  // `size` 0: 2048, and 4096 too where 2048 is over in so short a time that starting the threads shows.
  GemmLimit(DType dtype, int num_threads, int64_t size);

  // Times each size once more.
  void sample();

  double flops_per_second() const { return best_; }
  std::string description() const;  // "best of 8 oneDNN products of 2048 x 2048 x 2048 in this run (bf16, 2 threads)"

 private:
  struct Square {
    int64_t size;
    std::unique_ptr<BenchGemm> gemm;
    Buffer x, y;
  };
  void add(int64_t size);
  double time(Square& square);

  DType dtype_;
  int num_threads_;
  std::vector<Square> squares_;
  double best_ = 0;
  int64_t best_size_ = 0;
  int num_samples_ = 0;
};

}  // namespace eps::cli
