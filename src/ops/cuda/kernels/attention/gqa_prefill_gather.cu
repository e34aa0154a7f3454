#include "ops/cuda/kernels/attention/gqa_prefill_gather.h"

#include "ops/cuda/kernels/attention/ragged_batch.cuh"

namespace eps::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerWarp = 4;
constexpr int kRows = kThreads / 32 * kRowsPerWarp;

// The first CTA writes the batch's description, the others kRows cache rows each.
__global__ void __launch_bounds__(kThreads) gather_keys_kernel(const __grid_constant__ GqaGatherParams args) {
  const GqaDims& d = args.dims;
  const auto rows = [&args](int i) -> const RaggedRows& { return args.sequences[i].rows; };
  if (blockIdx.x == 0) {
    const int q_width = d.num_heads * d.head_dim;
    const RaggedWidths width{q_width, d.kv_width(), d.kv_width(), q_width};
    write_ragged_batch(args.batch, args.num_sequences, args.padded, width, rows);
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int units = d.kv_width() / 8;
  for (int i = 0; i < kRowsPerWarp; ++i) {
    const int row = (static_cast<int>(blockIdx.x) - 1) * kRows + static_cast<int>(threadIdx.x) / 32 * kRowsPerWarp + i;
    if (row >= args.num_rows) return;
    const auto& s = args.sequences[sequence_of_row(row, args.num_sequences, rows)];
    const int64_t from = int64_t{row - s.rows.k_begin} * d.kv_width();
    const int64_t to = int64_t{row} * d.kv_width();
    const auto copy = [&](const nv_bf16* source, nv_bf16* target) {
      const auto* a = reinterpret_cast<const uint4*>(source + from);
      auto* b = reinterpret_cast<uint4*>(target + to);
      for (int unit = lane; unit < units; unit += 32) b[unit] = a[unit];
    };
    copy(s.keys, args.key);
    copy(s.values, args.value);
  }
}

}  // namespace

void launch_gather_keys(const GqaGatherParams& params, cudaStream_t stream) {
  const auto ctas = static_cast<unsigned>(1 + ceil_div(params.num_rows, kRows));
  gather_keys_kernel<<<ctas, kThreads, 0, stream>>>(params);
  EPS_CUDA_LAUNCHED(gather_keys_kernel);
}

}  // namespace eps::cuda
