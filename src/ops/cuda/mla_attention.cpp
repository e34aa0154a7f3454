#include "ops/cuda/mla_attention.h"

#include <algorithm>

#include "base/error.h"
#include "ops/cuda/attention_runs.h"
#include "ops/cuda/kernels/attention/mla_decode.h"
#include "ops/cuda/kernels/attention/mla_plain.h"

namespace eps::cuda {
namespace {

MlaDims to_dims(const ops::MlaParams& p) {
  return {.num_heads = p.num_heads,
          .nope_dim = p.nope_dim,
          .rope_dim = p.rope_dim,
          .v_dim = p.v_dim,
          .kv_lora_rank = p.kv_lora_rank,
          .softmax_scale = p.softmax_scale};
}

// For smaller heads, the plain kernel is fast enough, and no cuDNN plans are needed, which take long to build.
constexpr int kMinPrefillQueryDim = 128;

AttentionForm choose(const MlaDims& dims, const DeviceSequence& s) {
  const bool prefill = MlaPrefill::supported(dims) && dims.q_dim() >= kMinPrefillQueryDim;
  if (prefill && s.q_count > MlaAttention::kMaxDecodeQueries) return AttentionForm::kPrefill;
  return mla_decode_supported(dims) ? AttentionForm::kDecode : AttentionForm::kPlain;
}

std::vector<AttentionRun> runs_of(const MlaDims& dims, std::span<const DeviceSequence> sequences) {
  return group_sequences(sequences, [&dims](const DeviceSequence& s) { return choose(dims, s); });
}

MlaDecodeShape decode_shape(const AttentionRun& run) {
  return {.num_sequences = static_cast<int>(run.count),
          .max_q_count = run.max_q_count,
          .token_begin = run.token_begin,
          .num_tokens = run.num_tokens};
}

}  // namespace

bool MlaAttention::supported(const ops::MlaParams& params) {
  const MlaDims dims = to_dims(params);
  return mla_decode_supported(dims) || mla_plain_supported(dims);
}

size_t MlaAttention::workspace_bytes(const ops::MlaParams& params, std::span<const DeviceSequence> sequences) {
  const MlaDims dims = to_dims(params);
  size_t bytes = 0;
  for (const AttentionRun& run : runs_of(dims, sequences)) {
    if (run.form == AttentionForm::kDecode)
      bytes = std::max(bytes, mla_decode_workspace_bytes(dims, decode_shape(run)));
    if (run.form == AttentionForm::kPrefill) {
      bytes = std::max(bytes, prefill_.workspace_bytes(dims, sequences.subspan(run.first, run.count)));
    }
  }
  return bytes;
}

void MlaAttention::run(const ops::MlaParams& params, const MlaDeviceWeight& weight, const nv_bf16* q,
                       std::span<const DeviceSequence> sequences, const DeviceSequence* device_sequences, int layer,
                       nv_bf16* out, std::byte* workspace, cublasHandle_t blas, cudaStream_t stream) {
  EPS_CHECK(supported(params), "latent attention with lora rank {}", params.kv_lora_rank);
  const MlaDims dims = to_dims(params);
  for (const AttentionRun& run : runs_of(dims, sequences)) {
    const DeviceSequence* on_device = device_sequences + run.first;
    switch (run.form) {
      case AttentionForm::kDecode:
        launch_decode_attention({.dims = dims,
                                 .shape = decode_shape(run),
                                 .kv_b = weight.kv_b,
                                 .q = q,
                                 .sequences = on_device,
                                 .layer = layer,
                                 .out = out,
                                 .workspace = workspace},
                                stream);
        break;
      case AttentionForm::kPrefill:
        prefill_.run(dims, weight.kv_b, q, sequences.subspan(run.first, run.count), layer, out, workspace, blas,
                     stream);
        break;
      case AttentionForm::kPlain:
        launch_plain_attention({.dims = dims,
                                .kv_b = weight.kv_b,
                                .q = q,
                                .sequences = on_device,
                                .out = out,
                                .num_sequences = static_cast<int>(run.count),
                                .max_q_count = run.max_q_count,
                                .layer = layer},
                               stream);
        break;
    }
  }
}

}  // namespace eps::cuda
