#include <algorithm>

#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/exchange/combine_rows.h"
#include "ops/cuda/kernels/exchange/token_sum.cuh"

namespace eps::cuda {
namespace {

// A block works on one token at a time, a thread on kUnit elements of it: all rows of the token are in flight at once.
constexpr int kMaxThreads = 256;
constexpr int kMaxTopK = 32;
constexpr int kRowsInFlight = 4;
constexpr int kBlocksPerSm = 2;  // 128 registers a thread

template <int kUnit>
using Raw = std::conditional_t<kUnit == kVector, uint4, nv_bf16>;

__device__ __forceinline__ void unpack(const uint4& raw, float (&v)[kVector]) { unpack_bf16(raw, v); }
__device__ __forceinline__ void unpack(nv_bf16 raw, float (&v)[1]) { v[0] = to_f32(raw); }

// The rows that this rank has of one token, by ascending expert.
struct TokenRows {
  int count;
  unsigned ranks;  // bit r: rank r has rows of the token
  int row[kMaxTopK];
  int segment[kMaxTopK];
  float weight[kMaxTopK];
};

// By the first warp of a block; the caller synchronises.
__device__ void find_rows(const ExpertOutputs& from, int num_ranks, int64_t token, TokenRows& rows) {
  const int lane = static_cast<int>(threadIdx.x);
  const bool is_used = lane < from.top_k;
  const int64_t i = token * from.top_k + lane;
  const int place = is_used ? from.place[i] : -1;
  const int expert = is_used ? from.expert[i] : 0;
  const float weight = is_used ? from.weight[i] : 0.0F;
  const unsigned ranks = __reduce_or_sync(~0U, is_used ? 1U << (expert / (from.num_experts / num_ranks)) : 0U);
  int before = 0;  // rows of smaller experts
  for (int other = 0; other < from.top_k; ++other) {
    const int e = __shfl_sync(~0U, place >= 0 ? expert : INT32_MAX, other);
    before += e < expert ? 1 : 0;
  }
  if (place >= 0) {
    rows.row[before] = place;
    rows.segment[before] = segment_of(expert, from.num_experts);
    rows.weight[before] = weight;
  }
  const unsigned here = __ballot_sync(~0U, place >= 0);
  if (lane == 0) {
    rows.count = __popc(here);
    rows.ranks = ranks;
  }
}

template <int kUnit>
__device__ __forceinline__ void end_leaf(float (&acc)[kUnit], float (&leaf)[kUnit]) {
#pragma unroll
  for (int c = 0; c < kUnit; ++c) {
    leaf[c] = round_to_bf16(acc[c]);
    acc[c] = 0.0F;
  }
}

// Calls add_leaf(segment, sum) for every segment that has rows, in order, for elements [i, i + kUnit) of a token.
// kLevel: of the ranks' nodes; -1: a rank's part is one leaf.
template <int kUnit, int kLevel, typename AddLeaf>
__device__ __forceinline__ void for_each_leaf(const ExpertOutputs& from, const TokenRows& rows, int i,
                                              const AddLeaf& add_leaf) {
  float acc[kUnit] = {};
  float leaf[kUnit];
  int segment = -1;
  for (int begin = 0; begin < rows.count; begin += kRowsInFlight) {
    Raw<kUnit> raw[kRowsInFlight];
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k) {
      if (begin + k < rows.count) {
        raw[k] = *reinterpret_cast<const Raw<kUnit>*>(from.rows + int64_t{rows.row[begin + k]} * from.width + i);
      }
    }
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k) {
      if (begin + k >= rows.count) break;
      const int next = kLevel < 0 ? 0 : rows.segment[begin + k];
      if (next != segment && segment >= 0) {
        end_leaf(acc, leaf);
        add_leaf(segment, leaf);
      }
      segment = next;
      const float weight = rows.weight[begin + k];
      float v[kUnit];
      unpack(raw[k], v);
#pragma unroll
      for (int c = 0; c < kUnit; ++c) acc[c] = fmaf(weight, v[c], acc[c]);
    }
  }
  if (segment < 0) return;
  end_leaf(acc, leaf);
  add_leaf(segment, leaf);
}

template <int kUnit, int kLevel>
__global__ void __launch_bounds__(kMaxThreads, kBlocksPerSm)
    sum_partials_kernel(const __grid_constant__ SumPartialsParams p) {
  __shared__ TokenRows rows[2];  // of this token and of the next one, in turn
  wait_for_previous_kernel();
  const int end = p.list.begin[1];
  const auto step = static_cast<int>(gridDim.x);
  int n = p.list.begin[0] + static_cast<int>(blockIdx.x);
  if (n >= end) return;
  if (threadIdx.x < kWarp) find_rows(p.from, p.counts.num_ranks, p.list.tokens[n], rows[0]);
  for (int turn = 0; n < end; n += step, turn ^= 1) {
    __syncthreads();
    if (n + step < end && threadIdx.x < kWarp) {
      find_rows(p.from, p.counts.num_ranks, p.list.tokens[n + step], rows[turn ^ 1]);
    }
    for (int i = static_cast<int>(threadIdx.x) * kUnit; i < p.from.width; i += static_cast<int>(blockDim.x) * kUnit) {
      float out[kUnit];
      if constexpr (kLevel >= 0) {
        TokenSum<kUnit> sum;
        for_each_leaf<kUnit, kLevel>(
            p.from, rows[turn], i, [&](int segment, const float(&leaf)[kUnit]) { sum.template add<0>(segment, leaf); });
        sum.finish(out);
      } else {
        for_each_leaf<kUnit, kLevel>(p.from, rows[turn], i, [&](int, const float(&leaf)[kUnit]) {
#pragma unroll
          for (int c = 0; c < kUnit; ++c) out[c] = leaf[c];
        });
      }
      store(p.to + int64_t{n} * p.from.width + i, out);
    }
  }
}

// A block for each token.
template <int kUnit, int kLevel>
__global__ void __launch_bounds__(kMaxThreads, kBlocksPerSm)
    finish_tokens_kernel(const __grid_constant__ FinishTokensParams p) {
  __shared__ TokenRows rows;
  wait_for_previous_kernel();
  const int me = p.counts.rank;
  const auto token = static_cast<int64_t>(blockIdx.x);
  if (threadIdx.x < kWarp) find_rows(p.from, p.counts.num_ranks, int64_t{me} * p.counts.max_tokens + token, rows);
  __syncthreads();
  const int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kUnit;
  if (i >= p.from.width) return;
  TokenSum<kUnit> sum;
  float in_order[kUnit] = {};  // of ranks whose experts are not whole nodes
  for (int r = 0; r < p.counts.num_ranks; ++r) {
    if ((rows.ranks >> r & 1U) == 0) continue;
    if (r == me) {
      for_each_leaf<kUnit, kLevel>(p.from, rows, i, [&](int segment, const float(&leaf)[kUnit]) {
        if constexpr (kLevel >= 0) {
          sum.template add<0>(segment, leaf);
        } else {
#pragma unroll
          for (int c = 0; c < kUnit; ++c) in_order[c] += leaf[c];
        }
      });
      continue;
    }
    float partial[kUnit];
    load(p.partials + (int64_t{r} * p.counts.max_tokens + token) * p.from.width + i, partial);
    if constexpr (kLevel >= 0) {
      sum.template add<kLevel>(r, partial);
    } else {
#pragma unroll
      for (int c = 0; c < kUnit; ++c) in_order[c] += partial[c];
    }
  }
  float out[kUnit];
  sum.finish(out);
  float base[kUnit] = {};
  if (p.shared != nullptr) load(p.shared + token * p.from.width + i, base);
#pragma unroll
  for (int c = 0; c < kUnit; ++c) out[c] = base[c] + (kLevel >= 0 ? out[c] : in_order[c]);
  store(p.out + token * p.from.width + i, out);
}

// The kernel that `choose` has for the level of the ranks' nodes.
template <typename Choose>
auto with_level(int num_ranks, const Choose& choose) {
  switch (level_of_ranks(num_ranks)) {
    case 0: return choose(std::integral_constant<int, 0>{});
    case 1: return choose(std::integral_constant<int, 1>{});
    case 2: return choose(std::integral_constant<int, 2>{});
    case 3: return choose(std::integral_constant<int, 3>{});
    default: return choose(std::integral_constant<int, -1>{});
  }
}

void check(const ExpertOutputs& from, const TokenCounts& counts) {
  EPS_CUDA_REQUIRE(from.top_k <= kMaxTopK && counts.num_ranks <= kMaxRanks);
  EPS_CUDA_REQUIRE(from.num_experts % counts.num_ranks == 0);
}

int num_threads(int64_t units) {
  // As few blocks along the width as can be, evenly filled.
  const int64_t blocks = ceil_div(units, kMaxThreads);
  return static_cast<int>(ceil_div(ceil_div(units, blocks), kWarp) * kWarp);
}

int num_sms() {
  int device = 0;
  int sms = 0;
  EPS_CUDA(cudaGetDevice(&device));
  EPS_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  return sms;
}

}  // namespace

void launch_sum_partials(const SumPartialsParams& params, cudaStream_t stream) {
  check(params.from, params.counts);
  if (params.from.width == 0) return;
  const bool vectors = params.from.width % kVector == 0 && is_aligned(params.from.rows) && is_aligned(params.to);
  const auto kernel = with_level(params.counts.num_ranks, [&](auto level) {
    return vectors ? sum_partials_kernel<kVector, level()> : sum_partials_kernel<1, level()>;
  });
  const int threads = num_threads(vectors ? params.from.width / kVector : params.from.width);
  // How many tokens there are only the device knows: enough blocks to fill it, each with many tokens.
  const int blocks = num_sms() * std::max(1, 2 * kMaxThreads / threads);
  launch_overlapped(kernel, {dim3(static_cast<unsigned>(blocks)), threads}, stream, params);
}

void launch_finish_tokens(const FinishTokensParams& params, cudaStream_t stream) {
  check(params.from, params.counts);
  const int tokens = params.counts.tokens[params.counts.rank];
  if (tokens == 0 || params.from.width == 0) return;
  const bool vectors = params.from.width % kVector == 0 && is_aligned(params.from.rows) &&
                       is_aligned(params.partials) && is_aligned(params.shared) && is_aligned(params.out);
  const auto kernel = with_level(params.counts.num_ranks, [&](auto level) {
    return vectors ? finish_tokens_kernel<kVector, level()> : finish_tokens_kernel<1, level()>;
  });
  const int64_t units = vectors ? params.from.width / kVector : params.from.width;
  const int threads = num_threads(units);
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(ceil_div(units, threads)));
  launch_overlapped(kernel, {grid, threads}, stream, params);
}

}  // namespace eps::cuda
