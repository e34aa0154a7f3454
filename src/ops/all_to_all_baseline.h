// The baseline of `bench a2a`: a library's messages between the GPUs of this process.
#pragma once

#include <cstdint>
#include <string>

namespace eps::ops {

class AllToAllBaseline {
 public:
  virtual ~AllToAllBaseline() = default;
  virtual std::string implementation() const = 0;  // "NCCL 2.28.9"
  // Sends `bytes` from every GPU to each other one, all at the same time, and returns the time in µs on the GPU on
  // which it took longest. The bytes are contiguous: nothing is packed or spread.
  //
  // Threads one caller at a time
  // Errors  kInternal: the library failed; kInput: more bytes than the maximum
  virtual double time_us(int64_t bytes) = 0;
};

}  // namespace eps::ops
