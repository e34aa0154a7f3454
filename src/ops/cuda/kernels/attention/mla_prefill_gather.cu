#include "ops/cuda/kernels/attention/mla_prefill_gather.h"

#include "ops/cuda/kernels/attention/ragged_batch.cuh"

namespace eps::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerWarp = 2;
constexpr int kRows = kThreads / 32 * kRowsPerWarp;

// The first CTA writes the batch's description, the others kRows cache rows each.
__global__ void __launch_bounds__(kThreads) prefill_gather_kernel(const __grid_constant__ PrefillGatherParams args) {
  const MlaDims& d = args.dims;
  const int tid = static_cast<int>(threadIdx.x);
  const auto rows = [&args](int i) -> const RaggedRows& { return args.sequences[i].rows; };
  if (blockIdx.x == 0) {
    const RaggedWidths width{d.num_heads * d.q_dim(), args.key_heads * d.q_dim(), args.key_heads * d.v_dim,
                             d.num_heads * d.v_dim};
    write_ragged_batch(args.batch, args.num_sequences, args.padded, width, rows);
    return;
  }
  const int lane = tid % 32;
  const int lora_units = d.kv_lora_rank / 8;
  const int rope_units = d.rope_dim / 8;
  for (int i = 0; i < kRowsPerWarp; ++i) {
    const int row = (static_cast<int>(blockIdx.x) - 1) * kRows + tid / 32 * kRowsPerWarp + i;
    if (row >= args.num_rows) return;
    const auto& s = args.sequences[sequence_of_row(row, args.num_sequences, rows)];
    const int64_t position = row - s.rows.k_begin;
    if (args.latent != nullptr) {
      const auto* src = reinterpret_cast<const uint4*>(s.latent + position * d.kv_lora_rank);
      auto* dst = reinterpret_cast<uint4*>(args.latent + static_cast<int64_t>(row) * d.kv_lora_rank);
      for (int unit = lane; unit < lora_units; unit += 32) dst[unit] = src[unit];
    }
    const auto* src = reinterpret_cast<const uint4*>(s.k_pe + position * d.rope_dim);
    nv_bf16* const dst = args.key + static_cast<int64_t>(row) * args.key_heads * d.q_dim() + d.nope_dim;
    for (int unit = lane; unit < rope_units * args.key_heads; unit += 32) {
      *reinterpret_cast<uint4*>(dst + unit / rope_units * d.q_dim() + unit % rope_units * 8) = src[unit % rope_units];
    }
  }
}

}  // namespace

void launch_gather_prefill(const PrefillGatherParams& params, cudaStream_t stream) {
  const auto ctas = static_cast<unsigned>(1 + ceil_div(params.num_rows, kRows));
  prefill_gather_kernel<<<ctas, kThreads, 0, stream>>>(params);
  EPS_CUDA_LAUNCHED(prefill_gather_kernel);
}

}  // namespace eps::cuda
