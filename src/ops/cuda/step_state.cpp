#include "ops/cuda/step_state.h"

#include <algorithm>
#include <cstring>

namespace eps::cuda {

StepState::StepState(MemoryResource& device, PinnedMemory& pinned, cudaStream_t stream)
    : stream_(stream), device_(device), staging_(pinned), copied_(make_event()) {}

void StepState::reserve(size_t num_tokens, size_t num_sequences) {
  if (num_tokens <= max_tokens_ && num_sequences <= max_sequences_) return;
  max_tokens_ = std::max<size_t>({64, max_tokens_, num_tokens});
  max_sequences_ = std::max<size_t>({16, max_sequences_, num_sequences});
  device_.reserve(total_bytes());
  staging_.reserve(total_bytes());
}

void StepState::begin(const ops::StepInputs& step) {
  const size_t num_tokens = std::max(step.ids.size(), step.positions.size());
  check_not_recording("begin_step");
  // The previous step's copy may still be reading the staging memory.
  EPS_CUDA(cudaEventSynchronize(copied_.get()));
  reserve(num_tokens, step.sequences.size());
  num_tokens_ = static_cast<int64_t>(num_tokens);
  host_sequences_.clear();
  auto* ints = reinterpret_cast<int32_t*>(staging_.data() + ints_begin());
  std::ranges::copy(step.ids, ints);
  std::ranges::copy(step.positions, ints + max_tokens_);
  for (size_t s = 0; s < step.sequences.size(); ++s) {
    const ops::StepSequence& from = step.sequences[s];
    host_sequences_.push_back({static_cast<int32_t>(from.q_begin), static_cast<int32_t>(from.q_count),
                               static_cast<int32_t>(from.context), static_cast<int32_t>(from.capacity),
                               static_cast<nv_bf16*>(from.latent), static_cast<nv_bf16*>(from.k_pe),
                               static_cast<nv_bf16*>(from.keys), static_cast<nv_bf16*>(from.values)});
    if (from.q_begin + from.q_count > num_tokens_) continue;  // used for attention only, without tokens in this step
    std::fill_n(ints + 2 * max_tokens_ + from.q_begin, from.q_count, static_cast<int32_t>(s));
  }
  const size_t sequence_bytes = host_sequences_.size() * sizeof(DeviceSequence);
  if (sequence_bytes > 0) std::memcpy(staging_.data(), host_sequences_.data(), sequence_bytes);
  // Copies only the used parts: after a long prompt, the arrays are much longer than a decode step needs.
  if (sequence_bytes > 0) {
    EPS_CUDA(cudaMemcpyAsync(device_.data(), staging_.data(), sequence_bytes, cudaMemcpyHostToDevice, stream_));
  }
  const size_t pitch = max_tokens_ * sizeof(int32_t);
  if (num_tokens > 0)
    EPS_CUDA(cudaMemcpy2DAsync(device_.data() + ints_begin(), pitch, ints, pitch, num_tokens * sizeof(int32_t), 3,
                               cudaMemcpyHostToDevice, stream_));
  EPS_CUDA(cudaEventRecord(copied_.get(), stream_));
}

}  // namespace eps::cuda
