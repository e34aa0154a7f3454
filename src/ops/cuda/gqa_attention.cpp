#include "ops/cuda/gqa_attention.h"

#include <algorithm>

#include "base/error.h"
#include "ops/cuda/attention_runs.h"
#include "ops/cuda/kernels/attention/gqa_attend.h"

namespace eps::cuda {
namespace {

static_assert(GqaAttention::kMaxHeadDim == kMaxGqaHeadDim);

std::vector<AttentionRun> runs_of(const GqaDims& dims, std::span<const DeviceSequence> sequences) {
  return group_sequences(sequences, [&dims](const DeviceSequence& s) {
    const bool is_prompt = s.q_count > GqaAttention::kMaxDecodeQueries;
    return is_prompt && GqaPrefill::supported(dims) ? AttentionForm::kPrefill : AttentionForm::kDecode;
  });
}

}  // namespace

GqaDims to_gqa_dims(const ops::GqaParams& p) {
  return {.num_heads = p.num_heads,
          .num_kv_heads = p.num_kv_heads,
          .head_dim = p.head_dim,
          .softmax_scale = p.softmax_scale};
}

size_t GqaAttention::workspace_bytes(const GqaCall& call, std::span<const DeviceSequence> sequences) {
  size_t bytes = 0;
  for (const AttentionRun& run : runs_of(call.dims, sequences)) {
    if (run.form != AttentionForm::kPrefill) continue;
    bytes = std::max(bytes, prefill_.workspace_bytes(call, sequences.subspan(run.first, run.count)));
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
                       .num_sequences = static_cast<int>(run.count),
                       .max_q_count = run.max_q_count,
                       .q = call.q,
                       .sequences = device_sequences + run.first,
                       .layer = call.layer,
                       .window = static_cast<int>(call.window),
                       .sinks = call.sinks,
                       .out = call.out},
                      stream);
  }
}

}  // namespace eps::cuda
