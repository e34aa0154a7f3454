// The current step's ids, positions and sequences in device memory. Their addresses change only when a step is larger
// than all earlier ones.
#pragma once

#include <span>
#include <vector>

#include "ops/cuda/cuda_context.h"
#include "ops/cuda/kernels/device/device_sequence.h"
#include "ops/step.h"

namespace eps::cuda {

class StepState {
 public:
  StepState(MemoryResource& device, PinnedMemory& pinned, cudaStream_t stream);

  // Copies the step to the device in stream order.
  void begin(const ops::StepInputs& step);

  int64_t num_tokens() const { return num_tokens_; }
  const int32_t* ids() const { return device_ints(0); }
  const int32_t* positions() const { return device_ints(1); }
  const int32_t* sequence_of_token() const { return device_ints(2); }
  const DeviceSequence* sequences() const { return reinterpret_cast<const DeviceSequence*>(device_.data()); }
  std::span<const DeviceSequence> host_sequences() const { return host_sequences_; }

 private:
  // [max_sequences] DeviceSequence, then three times [max_tokens] int32
  size_t ints_begin() const { return max_sequences_ * sizeof(DeviceSequence); }
  size_t total_bytes() const { return ints_begin() + 3 * max_tokens_ * sizeof(int32_t); }
  const int32_t* device_ints(size_t which) const {
    return reinterpret_cast<const int32_t*>(device_.data() + ints_begin()) + which * max_tokens_;
  }
  void reserve(size_t num_tokens, size_t num_sequences);

  cudaStream_t stream_;
  Buffer device_;
  Buffer staging_;  // the same layout as on the device
  EventPtr copied_;
  size_t max_tokens_ = 0;
  size_t max_sequences_ = 0;
  int64_t num_tokens_ = 0;
  std::vector<DeviceSequence> host_sequences_;
};

}  // namespace eps::cuda
