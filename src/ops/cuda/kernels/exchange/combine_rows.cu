#include <algorithm>

#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/device/sm_count.h"
#include "ops/cuda/kernels/exchange/combine_rows.h"
#include "ops/cuda/kernels/exchange/rank_flags.cuh"
#include "ops/cuda/kernels/exchange/token_sum.cuh"

namespace eps::cuda {
namespace {

// Each warp processes whole tokens, one after the other, and each lane kChunks vectors of a token at a time. Sums are
// limited by memory, so what counts is the number of bytes in flight: kChunks vectors of up to kLoads rows are
// requested before the first one is used, and the addends of the next token are looked up meanwhile.
constexpr int kWarps = 4;  // of a block
constexpr int kBlocksPerSm = 4;
constexpr int kMaxTopK = kWarp;
constexpr int kLoads = 4;
constexpr int kChunks = 2;
constexpr int kChunkCols = kWarp * kVector;

// One addend of a token's sum: a row of this rank, or the partial sum that another rank sent.
struct alignas(16) Addend {
  int32_t row;  // of the expert outputs, or of the partial sums if `level` is not negative
  float weight;
  int32_t segment;  // the first one, if it is a partial sum
  int32_t level;    // of a partial sum; -1: a row of this rank
};

// What a lane knows about one of the token's experts.
struct Choice {
  int32_t place = -1;  // -1: on another rank
  int32_t expert = INT_MAX;
  float weight = 0;
};

__device__ __forceinline__ Choice load_choice(const ExpertOutputs& from, int64_t token) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (lane >= from.top_k) return {};
  const int64_t i = token * from.top_k + lane;
  return {from.place[i], from.expert[i], from.weight[i]};
}

// Writes the addends of `token` to `list` in the order in which they are added, and returns their number. If
// kWithPartials is false, only rows of this rank are added. Called by a whole warp.
template <bool kWithPartials>
__device__ __forceinline__ int list_addends(const ExpertOutputs& from, const TokenCounts& counts, int64_t token,
                                            const Choice& mine, int level, Addend* list) {
  const bool is_used = mine.expert != INT_MAX;
  const int rank = is_used ? mine.expert / (from.num_experts / counts.num_ranks) : -1;
  bool is_added = mine.place >= 0;
  if constexpr (kWithPartials) {
    // The partial sum of another rank is added at the position of that rank's first expert.
    bool is_first = is_used && mine.place < 0;
    for (int other = 0; other < from.top_k; ++other) {
      const int e = __shfl_sync(~0U, mine.expert, other);
      const int r = __shfl_sync(~0U, rank, other);
      if (r == rank && e < mine.expert) is_first = false;
    }
    is_added = is_added || is_first;
  }
  // Each lane computes its position by counting the addends with a smaller expert, so no sorting is needed.
  int before = 0;
  for (int other = 0; other < from.top_k; ++other) {
    before += __shfl_sync(~0U, is_added ? mine.expert : INT_MAX, other) < mine.expert ? 1 : 0;
  }
  if (is_added && mine.place >= 0) {
    // Ranks that are not nodes of the tree have a single leaf each, which the level of partial sums (0) means, too.
    const int segment = level < 0 ? rank : segment_of(mine.expert, from.num_experts);
    list[before] = {mine.place, mine.weight, segment, -1};
  } else if (is_added) {
    const auto row = static_cast<int32_t>(int64_t{rank} * counts.max_tokens + token % counts.max_tokens);
    list[before] = {row, 1.0F, level < 0 ? rank : rank << level, level < 0 ? 0 : level};
  }
  const int count = __popc(__ballot_sync(~0U, is_added));
  __syncwarp();
  return count;
}

__device__ __forceinline__ uint4 load_row(const nv_bf16* p) {
  uint4 out;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
               : "l"(__cvta_generic_to_global(p)));
  return out;
}

// Computes kVector elements of a token's sum in each chunk, beginning at column `i` of the first one. Chunks outside
// the row are not read. kIsTree: ranks are nodes of the tree.
template <bool kIsTree>
__device__ __forceinline__ void sum_columns(const ExpertOutputs& from, const nv_bf16* partials, const Addend* list,
                                            int count, int i, float (&out)[kChunks * kVector]) {
  TokenSum<kChunks> sum;
  float in_order[kChunks * kVector] = {};
  float leaf[kChunks * kVector] = {};
  for (int begin = 0; begin < count; begin += kLoads) {
    uint4 raw[kLoads][kChunks];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      if (begin + k < count) {
        const Addend& addend = list[begin + k];
        const nv_bf16* row = (addend.level < 0 ? from.rows : partials) + int64_t{addend.row} * from.width + i;
#pragma unroll
        for (int c = 0; c < kChunks; ++c) {
          if (i + c * kChunkCols < from.width) raw[k][c] = load_row(row + c * kChunkCols);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      if (begin + k < count) {
        const Addend addend = list[begin + k];
        const int next = begin + k + 1 < count ? list[begin + k + 1].segment : INT_MAX;
        const bool is_partial = addend.level >= 0;
        SumNode<kChunks> node;
        if (is_partial) {
#pragma unroll
          for (int c = 0; c < kChunks; ++c) node.set(c, raw[k][c]);
        } else {
#pragma unroll
          for (int c = 0; c < kChunks; ++c) {
            float v[kVector];
            unpack_bf16(raw[k][c], v);
#pragma unroll
            for (int e = 0; e < kVector; ++e) {
              leaf[c * kVector + e] = fmaf(addend.weight, v[e], leaf[c * kVector + e]);
            }
          }
        }
        if (is_partial || next != addend.segment) {
          if (!is_partial) {
            node.round(leaf);
#pragma unroll
            for (float& value : leaf) value = 0.0F;
          }
          if constexpr (kIsTree) {
            sum.add(max(addend.level, 0), addend.segment, next, node);
          } else {
            node.add_to(in_order);
          }
        }
      }
    }
  }
#pragma unroll
  for (int e = 0; e < kChunks * kVector; ++e) out[e] = kIsTree ? sum.root()[e] : in_order[e];
}

// What the sums of all kernels have in common unless they say otherwise.
struct SumsBase {
  static constexpr bool kWithPartials = false;
  static constexpr bool kUsesFlags = false;
  static constexpr bool kSkipsOthers = false;  // tokens without rows on this rank get no sum
  template <typename Params>
  static __device__ bool wait(const Params& /*p*/) {
    return true;
  }
  template <typename Params>
  static __device__ void end(const Params& /*p*/) {}
};

// The tokens of other ranks whose partial sums on this rank are complete.
struct PartialSums : SumsBase {
  using Params = SumPartialsParams;
  static __device__ int begin(const Params& p) { return p.list.begin[0]; }
  static __device__ int past_last(const Params& p) { return p.list.begin[1]; }
  static __device__ int64_t token(const Params& p, int n) { return p.list.tokens[n]; }
  static __device__ const nv_bf16* partials(const Params& /*p*/) { return nullptr; }
  static __device__ const nv_bf16* shared(const Params& /*p*/) { return nullptr; }
  static __device__ nv_bf16* to(const Params& p, int n, int64_t /*token*/) { return p.to + int64_t{n} * p.from.width; }
};

// All tokens of other ranks, numbered one rank after the other.
struct SentSums : SumsBase {
  using Params = SendSumsParams;
  static constexpr bool kUsesFlags = true;
  static constexpr bool kSkipsOthers = true;
  static __device__ void end(const Params& p) { tell_ranks(p.flags, RankFlag::kSums); }
  static __device__ int begin(const Params& /*p*/) { return 0; }
  static __device__ int past_last(const Params& p) {
    if (peek(&p.flags.own->gave_up) != 0) return 0;  // the numbers may be those of another layer
    int count = 0;
    for (int r = 0; r < p.counts.num_ranks; ++r) count += r == p.counts.rank ? 0 : p.num_tokens[r];
    return count;
  }
  static __device__ int64_t token(const Params& p, int n) {
    int home = p.counts.rank == 0 ? 1 : 0;
    while (n >= p.num_tokens[home]) {
      n -= p.num_tokens[home];
      if (++home == p.counts.rank) ++home;
    }
    return int64_t{home} * p.counts.max_tokens + n;
  }
  static __device__ const nv_bf16* partials(const Params& /*p*/) { return nullptr; }
  static __device__ const nv_bf16* shared(const Params& /*p*/) { return nullptr; }
  static __device__ nv_bf16* to(const Params& p, int /*n*/, int64_t token) {
    return p.to[token / p.counts.max_tokens] + token % p.counts.max_tokens * p.from.width;
  }
};

// The tokens of this rank.
struct FinalSums : SumsBase {
  using Params = FinishTokensParams;
  static constexpr bool kWithPartials = true;
  static __device__ int begin(const Params& /*p*/) { return 0; }
  static __device__ int past_last(const Params& p) { return p.counts.tokens[p.counts.rank]; }
  static __device__ int64_t token(const Params& p, int n) { return int64_t{p.counts.rank} * p.counts.max_tokens + n; }
  static __device__ const nv_bf16* partials(const Params& p) { return p.partials; }
  static __device__ const nv_bf16* shared(const Params& p) { return p.shared; }
  static __device__ nv_bf16* to(const Params& p, int n, int64_t /*token*/) { return p.out + int64_t{n} * p.from.width; }
};

// The same, after waiting for the partial sums of all ranks.
struct FlaggedFinishParams : FinishTokensParams {
  RankFlags flags;
};
struct FlaggedFinalSums : FinalSums {
  using Params = FlaggedFinishParams;
  static constexpr bool kUsesFlags = true;
  static __device__ bool wait(const Params& p) { return wait_for_ranks(p.flags, RankFlag::kSums); }
  static __device__ void end(const Params& p) { end_layer(p.flags); }
};

// `level`: of the ranks' nodes; -1 if they are none. `most_slices`: a row is divided among this many warps if
// kIsSliced. Otherwise the kernel needs fewer registers, which it has none to spare of.
template <typename Sums, bool kIsTree, bool kIsSliced>
__global__ void __launch_bounds__(kWarps* kWarp, kBlocksPerSm)
    sum_tokens_kernel(const __grid_constant__ typename Sums::Params p, int level, int most_slices) {
  __shared__ Addend lists[kWarps][kMaxTopK];
  const int slices = kIsSliced ? most_slices : 1;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Addend* list = lists[warp];
  wait_for_previous_kernel();
  const int first = Sums::begin(p);
  const int end = Sums::wait(p) ? (Sums::past_last(p) - first) * slices : 0;
  const auto step = static_cast<int>(gridDim.x) * kWarps;
  const int width = p.from.width;
  const int slice_cols =
      (width + slices * kChunks * kChunkCols - 1) / (slices * kChunks * kChunkCols) * kChunks * kChunkCols;
  const auto token_of = [&](int work) { return work < end ? Sums::token(p, first + work / slices) : 0; };
  int work = static_cast<int>(blockIdx.x) * kWarps + warp;
  int64_t token = token_of(work);
  Choice choice = work < end ? load_choice(p.from, token) : Choice{};
  int64_t next_token = token_of(work + step);
  for (; work < end; work += step) {
    const int n = first + work / slices;
    const int count = list_addends<Sums::kWithPartials>(p.from, p.counts, token, choice, level, list);
    // Looked up one token ahead, so that the lookup is hidden.
    const Choice next_choice = work + step < end ? load_choice(p.from, next_token) : Choice{};
    const int64_t token_after = token_of(work + 2 * step);
    const nv_bf16* shared = Sums::shared(p);
    nv_bf16* to = Sums::to(p, n, token);
    const int begin_col = work % slices * slice_cols;
    const int end_col = Sums::kSkipsOthers && count == 0 ? 0 : min(begin_col + slice_cols, width);
    for (int i = begin_col + lane * kVector; i < end_col; i += kChunks * kChunkCols) {
      uint4 base[kChunks] = {};
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int at = i + c * kChunkCols;
        if (shared != nullptr && at < width) base[c] = load_row(shared + int64_t{n} * width + at);
      }
      float out[kChunks * kVector];
      sum_columns<kIsTree>(p.from, Sums::partials(p), list, count, i, out);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int at = i + c * kChunkCols;
        if (at >= width) break;
        float v[kVector];
        unpack_bf16(base[c], v);
#pragma unroll
        for (int e = 0; e < kVector; ++e) v[e] += out[c * kVector + e];
        store(to + at, v);
      }
    }
    __syncwarp();  // before the next token's addends replace these
    choice = next_choice;
    token = next_token;
    next_token = token_after;
  }
  Sums::end(p);
}

// `least_blocks`: 1 if the kernel has to run even without tokens.
template <typename Sums>
void launch_sums(const typename Sums::Params& params, bool are_others_aligned, int64_t most_tokens,
                 int64_t least_blocks, cudaStream_t stream) {
  const TokenCounts& counts = params.counts;
  const ExpertOutputs& from = params.from;
  EPS_CUDA_REQUIRE(from.top_k <= kMaxTopK && counts.num_ranks <= kMaxRanks);
  EPS_CUDA_REQUIRE(from.num_experts % counts.num_ranks == 0);
  EPS_CUDA_REQUIRE(from.width % kVector == 0 && is_aligned(from.rows) && are_others_aligned);
  // Blocks process tokens in a loop, because only the device knows how many partial sums there are. Few tokens are
  // divided among several warps, so that all SMs have loads in flight.
  const int64_t filling = int64_t{count_sms()} * kBlocksPerSm;
  const int64_t most_slices = std::max<int64_t>(1, ceil_div(from.width, kChunks * kChunkCols));
  const int64_t slices = std::clamp<int64_t>(filling * kWarps / std::max<int64_t>(1, most_tokens), 1, most_slices);
  const int64_t blocks = std::max(least_blocks, ceil_div(most_tokens * slices, kWarps));
  if (from.width == 0 || blocks == 0) return;
  const int level = level_of_ranks(counts.num_ranks);
  auto kernel = level >= 0 ? sum_tokens_kernel<Sums, true, true> : sum_tokens_kernel<Sums, false, true>;
  if constexpr (!Sums::kUsesFlags) {
    if (slices == 1) kernel = level >= 0 ? sum_tokens_kernel<Sums, true, false> : sum_tokens_kernel<Sums, false, false>;
  }
  const dim3 grid(static_cast<unsigned>(std::min(filling, blocks)));
  launch_overlapped(kernel, {grid, kWarps * kWarp}, stream, params, level, static_cast<int>(slices));
}

}  // namespace

void launch_sum_partials(const SumPartialsParams& params, cudaStream_t stream) {
  const int64_t most = int64_t{params.counts.num_ranks - 1} * params.counts.max_tokens;
  launch_sums<PartialSums>(params, is_aligned(params.to), most, 0, stream);
}

void launch_finish_tokens(const FinishTokensParams& params, cudaStream_t stream) {
  const bool aligned = is_aligned(params.partials) && is_aligned(params.shared) && is_aligned(params.out);
  launch_sums<FinalSums>(params, aligned, params.counts.tokens[params.counts.rank], 0, stream);
}

void launch_send_sums(const SendSumsParams& params, cudaStream_t stream) {
  bool aligned = true;
  for (int r = 0; r < params.counts.num_ranks; ++r) aligned = aligned && is_aligned(params.to[r]);
  launch_sums<SentSums>(params, aligned, params.most_others, 1, stream);
}

void launch_finish_few_tokens(const FinishTokensParams& params, const RankFlags& flags, cudaStream_t stream) {
  const bool aligned = is_aligned(params.partials) && is_aligned(params.shared) && is_aligned(params.out);
  launch_sums<FlaggedFinalSums>({params, flags}, aligned, params.counts.tokens[params.counts.rank], 1, stream);
}

void load_flag_sum_kernels() {
  cudaFuncAttributes attributes;
  EPS_CUDA(cudaFuncGetAttributes(&attributes, sum_tokens_kernel<SentSums, true, true>));
  EPS_CUDA(cudaFuncGetAttributes(&attributes, sum_tokens_kernel<SentSums, false, true>));
  EPS_CUDA(cudaFuncGetAttributes(&attributes, sum_tokens_kernel<FlaggedFinalSums, true, true>));
  EPS_CUDA(cudaFuncGetAttributes(&attributes, sum_tokens_kernel<FlaggedFinalSums, false, true>));
}

}  // namespace eps::cuda
