#include <algorithm>

#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/exchange/combine_rows.h"
#include "ops/cuda/kernels/exchange/token_sum.cuh"

namespace eps::cuda {
namespace {

// A block processes one token at a time, and a thread processes groups of kUnit elements of it. The addends of the next
// token are looked up meanwhile. A thread loads up to kLoadsInFlight addends before it uses the first one.
constexpr int kMaxThreads = 256;
constexpr int kBlocksPerSm = 2;  // leaves 128 registers per thread
constexpr int kMaxTopK = 32;
constexpr int kLoadsInFlight = 6;

template <int kUnit>
using Raw = std::conditional_t<kUnit == kVector, uint4, nv_bf16>;

__device__ __forceinline__ void unpack(const uint4& raw, float (&v)[kVector]) { unpack_bf16(raw, v); }
__device__ __forceinline__ void unpack(nv_bf16 raw, float (&v)[1]) { v[0] = to_f32(raw); }

// One addend of a token's sum: either a row of this rank, or the partial sum that another rank sent.
struct Addend {
  const nv_bf16* row;  // [width]
  float weight;        // of a row; 1 for a partial sum
  int segment;         // of a row; for a partial sum -1 - its rank
};

// The addends of one token's sum, in the order in which they are added.
struct Addends {
  int count;
  Addend list[kMaxTopK];
};

// Sets `out` to the addends of `token`. Called by the first warp of a block; the caller synchronises. If `partials` is
// null, only rows of this rank are added.
__device__ void find_addends(const ExpertOutputs& from, const TokenCounts& counts, const nv_bf16* partials,
                             int64_t token, Addends& out) {
  constexpr int kNone = INT32_MAX;
  const int lane = static_cast<int>(threadIdx.x);
  const bool is_used = lane < from.top_k;
  const int64_t i = token * from.top_k + lane;
  const int place = is_used ? from.place[i] : -1;
  const int expert = is_used ? from.expert[i] : kNone;
  const float weight = is_used ? from.weight[i] : 0.0F;
  const int rank = is_used ? expert / (from.num_experts / counts.num_ranks) : -1;
  // The partial sum of another rank is added at the position of that rank's first expert.
  bool is_first = is_used && place < 0 && partials != nullptr;
  for (int other = 0; other < from.top_k; ++other) {
    const int e = __shfl_sync(~0U, expert, other);
    const int r = __shfl_sync(~0U, rank, other);
    if (r == rank && e < expert) is_first = false;
  }
  // Each lane computes its position in the list by counting the addends with a smaller expert index, so no sorting is
  // needed.
  const bool is_added = place >= 0 || is_first;
  int before = 0;
  for (int other = 0; other < from.top_k; ++other) {
    before += __shfl_sync(~0U, is_added ? expert : kNone, other) < expert ? 1 : 0;
  }
  if (place >= 0) {
    out.list[before] = {from.rows + int64_t{place} * from.width, weight, segment_of(expert, from.num_experts)};
  } else if (is_first) {
    const int64_t row = int64_t{rank} * counts.max_tokens + token % counts.max_tokens;
    out.list[before] = {partials + row * from.width, 1.0F, -1 - rank};
  }
  const unsigned added = __ballot_sync(~0U, is_added);
  if (lane == 0) out.count = __popc(added);
}

// Computes elements [i, i + kUnit) of a token's sum. kLevel is the level of the tree at which the ranks' partial sums
// are nodes; -1 if they are not nodes, in which case each partial sum is one leaf and leaves are added in order.
template <int kUnit, int kLevel>
class TokenAdder {
 public:
  __device__ __forceinline__ void run(const Addends& addends, int i, float (&out)[kUnit]) {
    for (int begin = 0; begin < addends.count; begin += kLoadsInFlight) {
      Raw<kUnit> raw[kLoadsInFlight];
#pragma unroll
      for (int k = 0; k < kLoadsInFlight; ++k) {
        if (begin + k < addends.count) {
          raw[k] = *reinterpret_cast<const Raw<kUnit>*>(addends.list[begin + k].row + i);
        }
      }
#pragma unroll
      for (int k = 0; k < kLoadsInFlight; ++k) {
        if (begin + k >= addends.count) break;
        float v[kUnit];
        unpack(raw[k], v);
        add(addends.list[begin + k], v);
      }
    }
    end_leaf();
    if constexpr (kLevel >= 0) {
      sum_.finish(out);
    } else {
#pragma unroll
      for (int c = 0; c < kUnit; ++c) out[c] = in_order_[c];
    }
  }

 private:
  __device__ __forceinline__ void add(const Addend& addend, const float (&v)[kUnit]) {
    if (addend.segment < 0) {
      end_leaf();
      if constexpr (kLevel >= 0) {
        sum_.template add<kLevel>(-1 - addend.segment, v);
      } else {
#pragma unroll
        for (int c = 0; c < kUnit; ++c) in_order_[c] += v[c];
      }
      return;
    }
    const int segment = kLevel < 0 ? 0 : addend.segment;
    if (segment != segment_) end_leaf();
    segment_ = segment;
#pragma unroll
    for (int c = 0; c < kUnit; ++c) leaf_[c] = fmaf(addend.weight, v[c], leaf_[c]);
  }

  __device__ __forceinline__ void end_leaf() {
    if (segment_ < 0) return;
#pragma unroll
    for (int c = 0; c < kUnit; ++c) leaf_[c] = round_to_bf16(leaf_[c]);
    if constexpr (kLevel >= 0) {
      sum_.template add<0>(segment_, leaf_);
    } else {
#pragma unroll
      for (int c = 0; c < kUnit; ++c) in_order_[c] += leaf_[c];
    }
#pragma unroll
    for (int c = 0; c < kUnit; ++c) leaf_[c] = 0.0F;
    segment_ = -1;
  }

  TokenSum<kUnit> sum_;
  float in_order_[kUnit] = {};
  float leaf_[kUnit] = {};
  int segment_ = -1;
};

// The tokens of other ranks whose partial sums on this rank are complete.
struct PartialSums {
  using Params = SumPartialsParams;
  static __device__ int begin(const Params& p) { return p.list.begin[0]; }
  static __device__ int end(const Params& p) { return p.list.begin[1]; }
  static __device__ int64_t token(const Params& p, int n) { return p.list.tokens[n]; }
  static __device__ const nv_bf16* partials(const Params& /*p*/) { return nullptr; }
  static __device__ const nv_bf16* shared(const Params& /*p*/) { return nullptr; }
  static __device__ nv_bf16* to(const Params& p) { return p.to; }
};

// The tokens of this rank.
struct FinalSums {
  using Params = FinishTokensParams;
  static __device__ int begin(const Params& /*p*/) { return 0; }
  static __device__ int end(const Params& p) { return p.counts.tokens[p.counts.rank]; }
  static __device__ int64_t token(const Params& p, int n) { return int64_t{p.counts.rank} * p.counts.max_tokens + n; }
  static __device__ const nv_bf16* partials(const Params& p) { return p.partials; }
  static __device__ const nv_bf16* shared(const Params& p) { return p.shared; }
  static __device__ nv_bf16* to(const Params& p) { return p.out; }
};

template <typename Sums, int kUnit, int kLevel>
__global__ void __launch_bounds__(kMaxThreads, kBlocksPerSm)
    sum_tokens_kernel(const __grid_constant__ typename Sums::Params p) {
  __shared__ Addends addends[2];  // of the current token and of the next one, alternately
  wait_for_previous_kernel();
  const int end = Sums::end(p);
  const auto step = static_cast<int>(gridDim.x);
  const int width = p.from.width;
  const auto find = [&](int n, int turn) {
    if (n < end && threadIdx.x < kWarp) {
      find_addends(p.from, p.counts, Sums::partials(p), Sums::token(p, n), addends[turn]);
    }
  };
  int n = Sums::begin(p) + static_cast<int>(blockIdx.x);
  find(n, 0);
  for (int turn = 0; n < end; n += step, turn ^= 1) {
    __syncthreads();
    find(n + step, turn ^ 1);
    for (int i = static_cast<int>(threadIdx.x) * kUnit; i < width; i += static_cast<int>(blockDim.x) * kUnit) {
      float base[kUnit] = {};
      if (Sums::shared(p) != nullptr) load(Sums::shared(p) + int64_t{n} * width + i, base);
      float out[kUnit];
      TokenAdder<kUnit, kLevel>().run(addends[turn], i, out);
#pragma unroll
      for (int c = 0; c < kUnit; ++c) out[c] = base[c] + out[c];
      store(Sums::to(p) + int64_t{n} * width + i, out);
    }
  }
}

// Returns the kernel that `choose` selects for the level of the ranks' nodes.
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
  // Uses as few blocks along the width as possible, with about the same number of threads each.
  const int64_t blocks = ceil_div(units, kMaxThreads);
  return static_cast<int>(ceil_div(ceil_div(units, blocks), kWarp) * kWarp);
}

int count_sms() {
  int device = 0;
  int sms = 0;
  EPS_CUDA(cudaGetDevice(&device));
  EPS_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  return sms;
}

template <typename Sums>
void launch_sums(const typename Sums::Params& params, bool is_aligned_too, int64_t most_tokens, cudaStream_t stream) {
  check(params.from, params.counts);
  const int width = params.from.width;
  if (width == 0 || most_tokens == 0) return;
  const bool vectors = width % kVector == 0 && is_aligned(params.from.rows) && is_aligned_too;
  const auto kernel = with_level(params.counts.num_ranks, [&](auto level) {
    return vectors ? sum_tokens_kernel<Sums, kVector, level()> : sum_tokens_kernel<Sums, 1, level()>;
  });
  const int threads = num_threads(vectors ? width / kVector : width);
  // A few blocks per SM process the tokens in a loop, because only the device knows how many partial sums there are.
  const int64_t filling = int64_t{count_sms()} * kBlocksPerSm * std::max(1, kMaxThreads / threads);
  const dim3 grid(static_cast<unsigned>(std::min(filling, most_tokens)));
  launch_overlapped(kernel, {grid, threads}, stream, params);
}

}  // namespace

void launch_sum_partials(const SumPartialsParams& params, cudaStream_t stream) {
  const int64_t most = int64_t{params.counts.num_ranks - 1} * params.counts.max_tokens;
  launch_sums<PartialSums>(params, is_aligned(params.to), most, stream);
}

void launch_finish_tokens(const FinishTokensParams& params, cudaStream_t stream) {
  const bool aligned = is_aligned(params.partials) && is_aligned(params.shared) && is_aligned(params.out);
  launch_sums<FinalSums>(params, aligned, params.counts.tokens[params.counts.rank], stream);
}

}  // namespace eps::cuda
