#include "ops/cuda/gqa_attention.h"

#include <algorithm>

#include "base/error.h"
#include "ops/cuda/attention_runs.h"

namespace eps::cuda {
namespace {

std::vector<AttentionRun> runs_of(const GqaDims& dims, std::span<const DeviceSequence> sequences) {
  return group_sequences(sequences, [&dims](const DeviceSequence& s) {
    const bool is_prompt = s.q_count > GqaAttention::kMaxDecodeQueries;
    return is_prompt && GqaPrefill::supported(dims) ? AttentionForm::kPrefill : AttentionForm::kDecode;
  });
}

GqaAttendShape shape_of(const AttentionRun& run) { return {static_cast<int>(run.count), run.max_q_count}; }

}  // namespace

GqaDims to_gqa_dims(const ops::GqaParams& p) {
  return {.num_heads = p.num_heads,
          .num_kv_heads = p.num_kv_heads,
          .head_dim = p.head_dim,
          .softmax_scale = p.softmax_scale};
}

void GqaAttention::reserve(const GqaAttendWorkspace& workspace, cudaStream_t stream) {
  parts_.reserve(std::max<size_t>(1, workspace.part_bytes));
  const size_t bytes = workspace.num_counters * sizeof(int32_t);
  if (bytes <= arrived_.capacity()) return;
  arrived_.reserve(bytes);
  EPS_CUDA(cudaMemsetAsync(arrived_.data(), 0, arrived_.capacity(), stream));
}

size_t GqaAttention::workspace_bytes(const GqaCall& call, std::span<const DeviceSequence> sequences,
                                     cudaStream_t stream) {
  size_t bytes = 0;
  for (const AttentionRun& run : runs_of(call.dims, sequences)) {
    if (run.form == AttentionForm::kPrefill) {
      bytes = std::max(bytes, prefill_.workspace_bytes(call, sequences.subspan(run.first, run.count)));
    } else {
      reserve(gqa_attend_workspace(shape_of(run), call.dims), stream);
    }
  }
  return bytes;
}

void GqaAttention::run(const GqaCall& call, std::span<const DeviceSequence> sequences,
                       const DeviceSequence* device_sequences, std::byte* workspace, cudaStream_t stream) {
  for (const AttentionRun& run : runs_of(call.dims, sequences)) {
    if (run.form == AttentionForm::kPrefill) {
      prefill_.run(call, sequences.subspan(run.first, run.count), workspace, stream);
      continue;
    }
    launch_gqa_attend({.dims = call.dims,
                       .shape = shape_of(run),
                       .q = call.q,
                       .sequences = device_sequences + run.first,
                       .layer = call.layer,
                       .window = static_cast<int>(call.window),
                       .sinks = call.sinks,
                       .out = call.out,
                       .parts = parts_.data(),
                       .arrived = reinterpret_cast<int32_t*>(arrived_.data())},
                      stream);
  }
}

}  // namespace eps::cuda
