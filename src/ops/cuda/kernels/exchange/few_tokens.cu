#include "ops/cuda/kernels/exchange/few_tokens.h"

#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/device/warp_scan.cuh"
#include "ops/cuda/kernels/exchange/rank_flags.cuh"

namespace eps::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMaxTopK = kWarp;

// A warp copies a piece of a row at a time: kLoads vectors per lane, all of which are loaded before the first is
// stored.
constexpr int kLoads = 2;
constexpr int kPieceCols = kLoads * kWarp * kVector;

// More blocks would not be faster: 64 of them have 1 MB in flight.
constexpr int64_t kMostSenders = 64;

// The grid of kernels that place rows, unless that gives a block more than kMaxBlockTokens.
constexpr int64_t kPlacers = 128;
constexpr int kMaxBlockTokens = 32;
constexpr int kMaxBlockRows = kMaxBlockTokens * kMaxTopK;

__device__ __forceinline__ int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp_of_block() { return static_cast<int>(threadIdx.x) / kWarp; }

// A piece of a row in registers.
struct Piece {
  uint4 part[kLoads];
  int col;  // of the lane's first vector

  __device__ __forceinline__ Piece(const nv_bf16* row, int piece, int width)
      : col(piece * kPieceCols + lane_of_warp() * kVector) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      if (at(i) < width) part[i] = __ldcg(reinterpret_cast<const uint4*>(row + at(i)));
    }
  }
  __device__ __forceinline__ int at(int i) const { return col + i * kWarp * kVector; }
  __device__ __forceinline__ void store(nv_bf16* row, int width) const {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      if (at(i) < width) *reinterpret_cast<uint4*>(row + at(i)) = part[i];
    }
  }
};

__global__ void __launch_bounds__(kThreads) send_tokens_kernel(const __grid_constant__ SendTokensParams p) {
  wait_for_previous_kernel();
  const int lane = lane_of_warp();
  const int num_ranks = p.flags.num_ranks;
  const int rank = p.flags.rank;
  const int top_k = p.sizes.top_k;
  const int width = p.sizes.width;
  const int experts_per_rank = p.sizes.num_experts / num_ranks;
  const auto thread = static_cast<int>(threadIdx.x);
  if (blockIdx.x == 0 && thread < num_ranks) p.to[thread].num_tokens[rank] = p.num_tokens;
  const int pieces = (width + kPieceCols - 1) / kPieceCols;
  const auto step = static_cast<int>(gridDim.x) * kWarps;
  // Pieces of a token are copied by different warps, which all read its routing.
  for (int i = static_cast<int>(blockIdx.x) * kWarps + warp_of_block(); i < p.num_tokens * pieces; i += step) {
    const int token = i / pieces;
    const Piece piece(p.x + int64_t{token} * width, i % pieces, width);
    const bool is_used = lane < top_k;
    const int expert = is_used ? p.idx[token * top_k + lane] : 0;
    const unsigned ranks = __reduce_or_sync(~0U, is_used ? 1U << (expert / experts_per_rank) : 0U);
    const int64_t at = int64_t{rank} * p.sizes.most_tokens + token;
    if (i % pieces == 0 && is_used) {
      const float weight = p.weight[token * top_k + lane];
      for (int r = 0; r < num_ranks; ++r) {
        p.to[r].idx[at * top_k + lane] = expert;
        p.to[r].weight[at * top_k + lane] = weight;
      }
    }
    for (int r = 0; r < num_ranks; ++r) {
      if (r != rank && (ranks >> r & 1U) != 0) piece.store(p.to[r].x + at * width, width);
    }
  }
  tell_ranks(p.flags, RankFlag::kTokens);
}

struct PlaceSmem {
  int first_token[kMaxRanks + 1];   // in the list of the tokens of all ranks, one rank after the other
  int offset[kMaxSlotExperts + 1];  // of each expert: its rows, then its first row
  int before[kMaxSlotExperts];      // its rows of tokens before this block's
  int expert[kMaxBlockRows];        // of this block's rows; -1: another rank's
  int place[kMaxBlockRows];
};

// The number of a token, given its position in the list of all tokens.
__device__ __forceinline__ int token_at(const PlaceSmem& smem, int position, int most_tokens) {
  int home = 0;
  while (position >= smem.first_token[home + 1]) ++home;
  return home * most_tokens + position - smem.first_token[home];
}

// Every block counts the rows of all tokens, which are few, instead of waiting for another block's counts.
__device__ void count_rows(const PlaceTokensParams& p, int first_position, PlaceSmem& smem) {
  const int top_k = p.sizes.top_k;
  const int experts = p.sizes.num_experts / p.flags.num_ranks;
  const int first_expert = p.flags.rank * experts;
  for (int home = 0; home < p.flags.num_ranks; ++home) {
    const int begin = smem.first_token[home];
    const int rows = (smem.first_token[home + 1] - begin) * top_k;
    const int rows_before = (first_position - begin) * top_k;
    const int32_t* idx = p.from.idx + int64_t{home} * p.sizes.most_tokens * top_k;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < rows; i += kThreads) {
      const int e = __ldcg(idx + i) - first_expert;
      if (e < 0 || e >= experts) continue;
      atomicAdd(&smem.offset[e], 1);
      if (i < rows_before) atomicAdd(&smem.before[e], 1);
    }
  }
}

__device__ void give_no_expert_rows(const PlaceTokensParams& p) {
  const int experts = p.sizes.num_experts / p.flags.num_ranks;
  const auto thread = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const auto step = static_cast<int>(gridDim.x) * kThreads;
  for (int i = thread; i <= experts; i += step) p.offsets[i] = 0;
  const int places = p.flags.num_ranks * p.sizes.most_tokens * p.sizes.top_k;
  for (int i = thread; i < places; i += step) p.place[i] = -1;
}

__global__ void __launch_bounds__(kThreads) place_tokens_kernel(const __grid_constant__ PlaceTokensParams p) {
  __shared__ PlaceSmem smem;
  const auto thread = static_cast<int>(threadIdx.x);
  const int top_k = p.sizes.top_k;
  const int width = p.sizes.width;
  const int experts = p.sizes.num_experts / p.flags.num_ranks;
  for (int e = thread; e < experts; e += kThreads) smem.offset[e] = smem.before[e] = 0;
  wait_for_previous_kernel();
  if (!wait_for_ranks(p.flags, RankFlag::kTokens)) return give_no_expert_rows(p);
  if (thread < p.flags.num_ranks) smem.first_token[thread + 1] = __ldcg(p.from.num_tokens + thread);
  __syncthreads();
  if (thread == 0) {
    smem.first_token[0] = 0;
    for (int r = 0; r < p.flags.num_ranks; ++r) smem.first_token[r + 1] += smem.first_token[r];
  }
  __syncthreads();
  const int in_all = smem.first_token[p.flags.num_ranks];
  const int each = (in_all + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x);
  const int begin = min(static_cast<int>(blockIdx.x) * each, in_all);
  const int num_tokens = min(each, in_all - begin);
  count_rows(p, begin, smem);
  __syncthreads();
  if (thread < kWarp) {
    // The element after the last expert is not counted, so that the scan leaves the number of all rows in it.
    if (thread == 0) smem.offset[experts] = 0;
    __syncwarp();
    exclusive_scan(smem.offset, experts + 1);
  }
  const int num_rows = num_tokens * top_k;
  for (int i = thread; i < num_rows; i += kThreads) {
    const int token = token_at(smem, begin + i / top_k, p.sizes.most_tokens);
    const int e = __ldcg(p.from.idx + int64_t{token} * top_k + i % top_k) - p.flags.rank * experts;
    smem.expert[i] = e >= 0 && e < experts ? e : -1;
  }
  __syncthreads();
  if (blockIdx.x == 0) {
    for (int e = thread; e <= experts; e += kThreads) p.offsets[e] = smem.offset[e];
  }
  for (int i = thread; i < num_rows; i += kThreads) {
    const int e = smem.expert[i];
    int place = -1;
    if (e >= 0) {
      place = smem.offset[e] + smem.before[e];
      for (int j = 0; j < i; ++j) place += smem.expert[j] == e ? 1 : 0;
    }
    smem.place[i] = place;
    const int token = token_at(smem, begin + i / top_k, p.sizes.most_tokens);
    p.place[int64_t{token} * top_k + i % top_k] = place;
  }
  __syncthreads();
  const int pieces = (width + kPieceCols - 1) / kPieceCols;
  for (int i = warp_of_block(); i < num_tokens * pieces; i += kWarps) {
    const int t = i / pieces;
    const int mine = lane_of_warp() < top_k ? smem.place[t * top_k + lane_of_warp()] : -1;
    unsigned wanted = __ballot_sync(~0U, mine >= 0);
    if (wanted == 0) continue;
    const int token = token_at(smem, begin + t, p.sizes.most_tokens);
    const int own_first = p.flags.rank * p.sizes.most_tokens;
    const bool is_own = token >= own_first && token < own_first + p.sizes.most_tokens;
    const nv_bf16* x = is_own ? p.x + int64_t{token - own_first} * width : p.from.x + int64_t{token} * width;
    const Piece piece(x, i % pieces, width);
    for (; wanted != 0; wanted &= wanted - 1) {
      const int place = __shfl_sync(~0U, mine, __ffs(static_cast<int>(wanted)) - 1);
      piece.store(p.rows + int64_t{place} * width, width);
    }
  }
}

void check_sizes(const FewTokenSizes& sizes, const RankFlags& flags) {
  EPS_CUDA_REQUIRE(flags.num_ranks <= kMaxRanks && sizes.num_experts % flags.num_ranks == 0);
  EPS_CUDA_REQUIRE(sizes.num_experts / flags.num_ranks <= kMaxSlotExperts);
  EPS_CUDA_REQUIRE(sizes.top_k <= kMaxTopK && sizes.width % kVector == 0);
}

}  // namespace

void launch_send_tokens(const SendTokensParams& params, cudaStream_t stream) {
  check_sizes(params.sizes, params.flags);
  EPS_CUDA_REQUIRE(params.num_tokens <= params.sizes.most_tokens && is_aligned(params.x));
  const int64_t pieces = int64_t{params.num_tokens} * ceil_div(params.sizes.width, kPieceCols);
  // Without tokens, one block still tells the other ranks.
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>(ceil_div(pieces, kWarps), 1, kMostSenders));
  launch_overlapped(send_tokens_kernel, {.grid = dim3(blocks), .threads = kThreads}, stream, params);
}

void launch_place_tokens(const PlaceTokensParams& params, cudaStream_t stream) {
  check_sizes(params.sizes, params.flags);
  EPS_CUDA_REQUIRE(is_aligned(params.x) && is_aligned(params.rows));
  EPS_CUDA_REQUIRE(params.most_in_all <= params.flags.num_ranks * params.sizes.most_tokens);
  const int64_t least = ceil_div(params.most_in_all, kMaxBlockTokens);
  const int64_t blocks = std::max({int64_t{1}, least, std::min<int64_t>(params.most_in_all, kPlacers)});
  launch_overlapped(place_tokens_kernel, {.grid = dim3(static_cast<unsigned>(blocks)), .threads = kThreads}, stream,
                    params);
}

void load_few_token_kernels() {
  cudaFuncAttributes attributes;
  EPS_CUDA(cudaFuncGetAttributes(&attributes, send_tokens_kernel));
  EPS_CUDA(cudaFuncGetAttributes(&attributes, place_tokens_kernel));
}

}  // namespace eps::cuda
