// The limit that benchmarks give rates in percent of.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/gemm_baseline.h"
#include "ops/op_set.h"
#include "tensor/tensor.h"

namespace eps::cli {

// The best rate seen of square products: through oneDNN on the CPU, through the op set (cuBLAS) on a device.
class GemmLimit {
 public:
  // Of the machine that `ops` computes on; `ops` outlives the object.
  GemmLimit(OpSet& ops, int num_threads, int64_t size);
  // Of the host. `size` 0: 2048, and 4096 too where 2048 is over in so short a time that starting the threads shows.
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
  struct DeviceSquare {
    std::unique_ptr<LinearWeight> weight;
    Buffer x, y;
  };
  void add_device(int64_t size);
  double time_device();
  void keep_best(int64_t size, double seconds);

  OpSet* device_ops_ = nullptr;  // null: the host
  DeviceSquare device_square_;

  DType dtype_;
  int num_threads_;
  std::vector<Square> squares_;
  double best_ = 0;
  int64_t best_size_ = 0;
  int num_samples_ = 0;
};

}  // namespace eps::cli
