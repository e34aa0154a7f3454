// The limit that benchmarks give rates in percent of.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "epsmoe/stop.h"
#include "ops/op_set.h"
#include "tensor/tensor.h"

namespace eps {

// The best rate seen of square products: through oneDNN on the CPU, through the op set (cuBLAS) on a device.
class GemmLimit {
 public:
  // Of the machine that `ops` computes on; `ops` outlives the object. `stop` is looked at while matrices are filled and
  // before each product, which throw kInterrupted.
  GemmLimit(OpSet& ops, int num_threads, int64_t size, StopToken stop = {});
  // Of the host. `size` 0: 2048, and 4096 too where 2048 is over in so short a time that starting the threads shows.
  GemmLimit(DType dtype, int num_threads, int64_t size, StopToken stop = {});

  // Times each size once more.
  void sample();

  double flops_per_second() const { return best_; }
  std::string description() const;  // "best of 8 oneDNN products of 2048 x 2048 x 2048 in this run (bf16, 2 threads)"

 private:
  // A product of square matrices, and how long it takes once more.
  struct Square {
    int64_t size;
    std::function<double()> seconds;
  };
  void use_host(DType dtype, int num_threads, int64_t size);
  void add_host(DType dtype, int num_threads, int64_t size);
  void use_device(OpSet& ops, int64_t size);

  StopToken stop_;
  std::string library_;   // that multiplies
  std::string settings_;  // "bf16, 2 threads"
  std::vector<Square> squares_;
  double best_ = 0;
  int64_t best_size_ = 0;
  int num_samples_ = 0;
};

}  // namespace eps
