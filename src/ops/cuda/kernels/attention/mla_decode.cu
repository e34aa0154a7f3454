#include "ops/cuda/kernels/attention/mla_decode.h"

#include <algorithm>
#include <cmath>

#include "ops/cuda/kernels/attention/mla_decode_absorb.cuh"
#include "ops/cuda/kernels/attention/mla_decode_attend.cuh"
#include "ops/cuda/kernels/attention/mla_decode_project.cuh"
#include "ops/cuda/kernels/device/sm_count.h"

// Three kernels:
//   absorb_query   q_lat[t, h] = W_ukᵀ[h] · q_nope[t, h]
//   attend_latent  one CTA per (split of the context, tile of 16 or 32 (token, head) rows, sequence): an unnormalised
//                  partial sum of latents per row, with the row's running maximum and sum
//   project_value  merges the splits and multiplies with W_uv[h]
// attend_latent and project_value are launched with programmatic stream serialisation: they start early and load what
// does not depend on the previous kernel (cache, weights), then wait for it. absorb_query is launched the ordinary way,
// so everything before it (the cache's new rows, q) is complete when any of the three starts.
namespace eps::cuda {
namespace {

using namespace mla_decode_detail;  // NOLINT(google-build-using-namespace): the other half of this file

constexpr float kLog2E = 1.4426950408889634F;
constexpr int kRowTilesWide = 2;
// From this many tokens on, project_value_wide is faster (all three kernels together: 92 instead of 107 µs for 256
// tokens, but 51 instead of 45 µs for 32).
constexpr int kWideTokens = 128;

int rows_per_cta(const MlaDims& dims, const MlaDecodeShape& shape) {
  return dims.num_heads * shape.max_q_count > 16 ? 16 * kRowTilesWide : 16;
}

int row_tiles(const MlaDims& dims, const MlaDecodeShape& shape) {
  return static_cast<int>(ceil_div(int64_t{dims.num_heads} * shape.max_q_count, rows_per_cta(dims, shape)));
}

// Returns the number of splits per context with the shortest total time on this many multiprocessors, if all contexts
// have equal length. A wave takes 1 / splits of a context's time plus a constant.
int num_splits(const MlaDims& dims, const MlaDecodeShape& shape) {
  const int num_sms = count_sms();
  constexpr double kWaveCost =
      0.03;  // roughly the time to start a CTA and write its partial sum, relative to a context of 2k
  const int64_t ctas = int64_t{shape.num_sequences} * row_tiles(dims, shape);
  // Beyond one wave, more splits only make the last wave more even.
  const int limit = static_cast<int>(std::clamp<int64_t>(num_sms / ctas, 16, kMaxSplits));
  int best = 1;
  double best_cost = INFINITY;
  for (int splits = 1; splits <= limit; ++splits) {
    const double cost = static_cast<double>(ceil_div(ctas * splits, num_sms)) * (1.0 / splits + kWaveCost);
    if (cost < best_cost) {
      best = splits;
      best_cost = cost;
    }
  }
  return best;
}

struct Workspace {
  size_t partial = 0;  // offsets
  size_t max_sum = 0;
  size_t total = 0;
};

Workspace layout(const MlaDims& dims, const MlaDecodeShape& shape) {
  const auto aligned = [](size_t bytes) { return (bytes + 255) / 256 * 256; };
  const size_t rows = static_cast<size_t>(shape.num_tokens) * static_cast<size_t>(dims.num_heads);
  const size_t parts = rows * static_cast<size_t>(num_splits(dims, shape));
  Workspace w;
  w.partial = aligned(rows * kLora * sizeof(nv_bf16));
  w.max_sum = w.partial + aligned(parts * kLora * sizeof(float));
  w.total = w.max_sum + aligned(parts * sizeof(float2));
  return w;
}

template <int kRowTiles>
void launch_attend(const AttendArgs& args, dim3 grid, cudaStream_t stream) {
  constexpr int kBytes = attend_shared_bytes<kRowTiles>();
  EPS_CUDA(cudaFuncSetAttribute(attend_latent_kernel<kRowTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  launch_overlapped(attend_latent_kernel<kRowTiles>, {.grid = grid, .threads = kAttendThreads, .shared_bytes = kBytes},
                    stream, args);
}

template <int kTokens>
void launch_project(const ProjectArgs& args, cudaStream_t stream) {
  const dim3 grid(kProjectCluster, static_cast<unsigned>(args.num_heads),
                  static_cast<unsigned>(ceil_div(args.num_tokens, kTokens)));
  launch_overlapped(project_value_kernel<kTokens>,
                    {.grid = grid, .threads = kProjectThreads, .cluster = kProjectCluster}, stream, args);
}

}  // namespace

bool mla_decode_supported(const MlaDims& p) {
  return p.nope_dim == kNope && p.rope_dim == kRope && p.v_dim == kValue && p.kv_lora_rank == kLora;
}

size_t mla_decode_workspace_bytes(const MlaDims& dims, const MlaDecodeShape& shape) {
  if (shape.num_tokens == 0) return 0;
  return layout(dims, shape).total;
}

void launch_decode_attention(const MlaDecodeParams& p, cudaStream_t stream) {
  const MlaDims& dims = p.dims;
  const MlaDecodeShape& shape = p.shape;
  if (shape.num_tokens == 0) return;
  const Workspace where = layout(dims, shape);
  const int splits = num_splits(dims, shape);
  const int heads = dims.num_heads;
  auto* q_lat = reinterpret_cast<nv_bf16*>(p.workspace);
  auto* partial = reinterpret_cast<float*>(p.workspace + where.partial);
  auto* max_sum = reinterpret_cast<float2*>(p.workspace + where.max_sum);
  const nv_bf16* q = p.q + static_cast<int64_t>(shape.token_begin) * heads * kQuery;
  nv_bf16* out = p.out + static_cast<int64_t>(shape.token_begin) * heads * kValue;

  // With many tokens, a CTA reuses the weights in its registers for several groups of 16 tokens. With few tokens,
  // separate CTAs finish sooner.
  const int absorb_tokens = shape.num_tokens <= 64 ? 16 : 64;
  const dim3 absorb_grid(kLora / kAbsorbColumns, static_cast<unsigned>(heads),
                         static_cast<unsigned>(ceil_div(shape.num_tokens, absorb_tokens)));
  absorb_query_kernel<<<absorb_grid, kAbsorbThreads, 0, stream>>>(p.kv_b, q, q_lat, heads, shape.num_tokens,
                                                                  absorb_tokens);
  EPS_CUDA_LAUNCHED(absorb_query_kernel);

  const AttendArgs attend{.sequences = p.sequences,
                          .q = q,
                          .q_lat = q_lat,
                          .partial = partial,
                          .max_sum = max_sum,
                          .num_heads = heads,
                          .token_begin = shape.token_begin,
                          .num_splits = splits,
                          .layer = p.layer,
                          .scale_log2 = dims.softmax_scale * kLog2E};
  const dim3 attend_grid(static_cast<unsigned>(splits), static_cast<unsigned>(row_tiles(dims, shape)),
                         static_cast<unsigned>(shape.num_sequences));
  if (rows_per_cta(dims, shape) == 16) {
    launch_attend<1>(attend, attend_grid, stream);
  } else {
    launch_attend<kRowTilesWide>(attend, attend_grid, stream);
  }

  const ProjectArgs project{.kv_b = p.kv_b,
                            .partial = partial,
                            .max_sum = max_sum,
                            .out = out,
                            .num_heads = heads,
                            .num_tokens = shape.num_tokens,
                            .num_splits = splits};
  if (shape.num_tokens == 1) {
    launch_project<1>(project, stream);
  } else if (shape.num_tokens <= 16 && splits > 4) {  // with many partial sums to merge, more CTAs are faster
    launch_project<4>(project, stream);
  } else if (shape.num_tokens < kWideTokens) {
    launch_project<16>(project, stream);
  } else {
    const dim3 grid(static_cast<unsigned>(heads), static_cast<unsigned>(ceil_div(shape.num_tokens, 16)));
    launch_overlapped(project_value_wide_kernel, {.grid = grid, .threads = kProjectThreads}, stream, project);
  }
}

}  // namespace eps::cuda
