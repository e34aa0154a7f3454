// The limit that benchmarks give rates in percent of.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/gemm_baseline.h"
#include "tensor/tensor.h"

namespace eps::cli {

// The best rate seen of square oneDNN products.
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
    std::unique_ptr<GemmBaseline> gemm;
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
