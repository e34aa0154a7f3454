// The rate of large square GEMMs, to which benchmarks compare their rates.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "epsmoe/stop.h"
#include "ops/op_set.h"
#include "tensor/tensor.h"

namespace eps::measure {

// The best measured rate of square products, with oneDNN on the CPU and with the op set (cuBLAS) on a device.
class GemmLimit {
 public:
  // The limit of the device of `ops`, which outlives the object. `stop` is polled while matrices are filled and before
  // each product; a request throws kInterrupted.
  GemmLimit(ops::OpSet& ops, int num_threads, int64_t size, StopToken stop = {});
  // The limit of the host. `size` 0: 2048, and also 4096 if a product of 2048 is so short that starting the threads
  // matters.
  GemmLimit(DType dtype, int num_threads, int64_t size, StopToken stop = {});

  // Times one product of each size.
  void sample();

  double flops_per_second() const { return best_; }
  std::string description() const;  // "best of 8 oneDNN products of 2048 x 2048 x 2048 in this run (bf16, 2 threads)"

 private:
  // A product of square matrices, and a function that runs it and returns its time.
  struct Square {
    int64_t size;
    std::function<double()> seconds;
  };
  void use_host(DType dtype, int num_threads, int64_t size);
  void add_host(DType dtype, int num_threads, int64_t size);
  void use_device(ops::OpSet& ops, int64_t size);

  StopToken stop_;
  std::string library_;   // "oneDNN" or "cuBLAS"
  std::string settings_;  // "bf16, 2 threads"
  std::vector<Square> squares_;
  double best_ = 0;
  int64_t best_size_ = 0;
  int num_samples_ = 0;
};

}  // namespace eps::measure
