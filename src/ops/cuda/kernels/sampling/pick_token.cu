#include "ops/cuda/kernels/sampling/pick_token.h"

#include <cfloat>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"

#include "ops/cuda/kernels/sampling/pick_token_bins.cuh"

namespace eps::cuda {
namespace {

// One block samples one token. Top-k, top-p and the sampling itself are the same search, performed up to three times:
// find the candidate, in descending order of logits, at which a running sum (of ones, or of weights) exceeds a target.
// No sorting is needed: the candidates are counted in bins by logit, the bin in which the sum exceeds the target is
// found, and its candidates are divided into bins again.
constexpr int kThreads = kBins;
constexpr int kWarps = kBinWarps;
constexpr int kBatch = 8;  // loads in flight per thread; the row is in the L2 cache
constexpr uint32_t kInfinityKey = 0xff800000U;
constexpr uint32_t kMinusInfinityKey = 0x007fffffU;

// Calls f(logit, index) for row[begin], row[begin + stride], …
template <typename F>
__device__ __forceinline__ void for_each(const float* row, int begin, int end, int stride, F f) {
  for (int first = begin; first < end; first += kBatch * stride) {
    float v[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (first + b * stride < end) v[b] = row[first + b * stride];
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (first + b * stride < end) f(v[b], first + b * stride);
    }
  }
}

struct Shared {
  BinMemory bins;
  uint64_t warp_best[kWarps];
  uint32_t warp_lowest[kWarps];
  uint32_t warp_count[kWarps];
};

struct Extremes {
  uint32_t largest;
  int32_t largest_id;  // the lowest id among equal logits
  uint32_t lowest;
};

// Returns the keys of the row's smallest and largest logits, which may be NaN or infinite.
__device__ Extremes find_extremes(Shared& s, const float* row, int vocab) {
  const int t = static_cast<int>(threadIdx.x);
  uint64_t best = 0;  // compares by key, then prefers the lower index
  uint32_t lowest = ~0U;
  for_each(row, t, vocab, kThreads, [&](float logit, int i) {
    const uint32_t key = order_key(logit);
    best = max(best, uint64_t{key} << 32 | ~static_cast<uint32_t>(i));
    lowest = min(lowest, key);
  });
  const auto warp_best = [](uint64_t x) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) x = max(x, __shfl_xor_sync(~0U, x, offset));
    return x;
  };
  best = warp_best(best);
  lowest = __reduce_min_sync(~0U, lowest);
  if (t % kWarp == 0) {
    s.warp_best[t / kWarp] = best;
    s.warp_lowest[t / kWarp] = lowest;
  }
  __syncthreads();
  best = warp_best(s.warp_best[t % kWarp]);
  lowest = __reduce_min_sync(~0U, s.warp_lowest[t % kWarp]);
  return {static_cast<uint32_t>(best >> 32), static_cast<int32_t>(~static_cast<uint32_t>(best)), lowest};
}

// Maps the logits of a row to weights and bins.
struct Scale {
  float top;
  float rate;  // log2(e) / temperature
  float one;   // the weight 1
  float bins_per_unit;

  // Neither function overflows to NaN at the limits of f32. Both depend only on the logit, so equal logits are treated
  // alike.
  __device__ float distance(float logit) const { return fminf(top - logit, FLT_MAX); }
  // The weight of -infinity must be 0 at any temperature; with a very high one, the product below would be a small
  // number.
  __device__ uint64_t weight(float logit) const {
    return logit == -INFINITY ? 0 : __float2ull_rn(exp2f(-distance(logit) * rate) * one);
  }
  // The bin in the first pass: bins divide the range with nonzero weights evenly, and a smaller logit never has a lower
  // bin. (0·∞ is NaN, and NaN converts to 0.)
  __device__ int bin(float logit) const { return min(__float2int_rz(distance(logit) * bins_per_unit), kBins - 1); }
};

__device__ Scale make_scale(const Extremes& extremes, double temperature, int weight_bits) {
  Scale s{};
  s.top = key_value(extremes.largest);
  s.rate = static_cast<float>(fmin(1.4426950408889634 / temperature, double{FLT_MAX}));
  s.one = ldexpf(1.0F, weight_bits);
  // Candidates farther than this from the largest logit have a weight that rounds to 0.
  const float range = fminf(s.distance(key_value(extremes.lowest)), static_cast<float>(weight_bits + 1) / s.rate);
  s.bins_per_unit = range > 0.0F ? static_cast<float>(kBins) / range : 0.0F;
  return s;
}

// Returns the first of `count` keys from `begin` on for which `is_past` holds; it must also hold for all later keys.
// Called by all threads of the block.
template <typename F>
__device__ uint32_t first_key(uint32_t begin, uint64_t count, F is_past) {
  while (count > 0) {
    const uint64_t step = (count + kThreads - 1) / kThreads;
    const uint64_t offset = threadIdx.x * step;
    const auto num_short = static_cast<uint64_t>(
        __syncthreads_count(offset < count && !is_past(begin + static_cast<uint32_t>(offset)) ? 1 : 0));
    if (num_short == 0) break;
    // Continue between the last tested key for which it does not hold and the first one for which it does.
    const uint64_t skipped = (num_short - 1) * step + 1;
    begin += static_cast<uint32_t>(skipped);
    count = min(step - 1, count - skipped);
  }
  return begin;
}

// Candidates with keys from `lowest` to `highest`, each with the weight `each`: either one candidate, or several with
// equal logits.
struct Place {
  Tally before;  // of all candidates with larger logits
  uint64_t each;
  uint32_t lowest;
  uint32_t highest;
};

__device__ Place find_place(Shared& s, const float* row, int vocab, const Scale& scale, const Extremes& extremes,
                            const Bin& first, bool by_count, uint64_t target) {
  Bin bin = find_bin(s.bins, first, by_count, target);
  // The bins of the first pass are ranges of logits, so the keys of a bin are consecutive and both ends are found by
  // search.
  const uint64_t num_keys = uint64_t{extremes.largest} - extremes.lowest + 1;
  uint32_t lowest =
      first_key(extremes.lowest, num_keys, [&](uint32_t key) { return scale.bin(key_value(key)) <= bin.index; });
  uint32_t highest =
      first_key(extremes.lowest, num_keys, [&](uint32_t key) { return scale.bin(key_value(key)) < bin.index; }) - 1;
  // Refines the bin: its range of keys is divided into bins again until it contains only one candidate, or only
  // candidates with equal logits. Each pass shortens the range by kBinBits bits.
  while (lowest < highest && bin.self.count > 1) {
    const int shift = max(0, kWarp - __clz(static_cast<int>(highest - lowest)) - kBinBits);
    clear_bins(s.bins);
    for_each(row, static_cast<int>(threadIdx.x), vocab, kThreads, [&](float logit, int) {
      const uint32_t key = order_key(logit);
      if (key < lowest || key > highest) return;
      const uint64_t weight = scale.weight(logit);
      if (weight > 0) add_to_bin(s.bins, static_cast<int>((highest - key) >> shift), weight);
    });
    Tally total;
    const Bin mine = read_bins(s.bins, &total);
    const Tally before = bin.before;
    bin = find_bin(s.bins, mine, by_count, target - measure(before, by_count));
    bin.before = bin.before + before;
    highest -= static_cast<uint32_t>(bin.index) << shift;
    lowest = max(lowest, highest - min(highest, (1U << shift) - 1));
  }
  return {bin.before, bin.self.weight / bin.self.count, lowest, highest};
}

// Writes the id of the (skip + 1)th candidate, in ascending order of ids, among those with keys from `lowest` to
// `highest`.
__device__ void write_member(Shared& s, const float* row, int vocab, const Scale& scale, const Place& place,
                             uint32_t skip, int32_t* token) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const auto is_member = [&](float logit) {
    const uint32_t key = order_key(logit);
    return key >= place.lowest && key <= place.highest && scale.weight(logit) > 0;
  };
  // Each warp counts the members in its own range of whole batches. The warp whose range contains the token then finds
  // it.
  const int stretch = static_cast<int>(ceil_div(ceil_div(vocab, kWarps), kBatch * kWarp)) * kBatch * kWarp;
  const int begin = min(warp * stretch, vocab);
  const int end = min(begin + stretch, vocab);
  uint32_t count = 0;
  for_each(row, begin + lane, end, kWarp, [&](float logit, int) { count += is_member(logit) ? 1 : 0; });
  count = __reduce_add_sync(~0U, count);
  if (lane == 0) s.warp_count[warp] = count;
  __syncthreads();
  const uint32_t before = __reduce_add_sync(~0U, lane < warp ? s.warp_count[lane] : 0);
  if (skip < before || skip - before >= count) return;
  skip -= before;
  for (int first = begin; first < end; first += kBatch * kWarp) {
    float v[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = first + b * kWarp + lane;
      v[b] = i < end ? row[i] : -INFINITY;  // never a member: its weight is 0
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const uint32_t members = __ballot_sync(~0U, is_member(v[b]));
      const auto lower = static_cast<uint32_t>(__popc(members & ((1U << lane) - 1)));
      if ((members >> lane & 1U) != 0 && lower == skip) *token = first + b * kWarp + lane;
      skip -= static_cast<uint32_t>(__popc(members));  // wraps around to a huge number after the token has been found
    }
  }
}

__global__ void __launch_bounds__(kThreads) pick_tokens_kernel(const float* logits, const ops::SampleParams* params,
                                                               int vocab, int weight_bits, int32_t* tokens) {
  __shared__ Shared s;
  wait_for_previous_kernel();
  const float* row = logits + int64_t{blockIdx.x} * vocab;
  const ops::SampleParams settings = params[blockIdx.x];
  int32_t* token = tokens + blockIdx.x;

  const Extremes extremes = find_extremes(s, row, vocab);
  // Depending on its sign, the key of a NaN is greater than that of infinity or less than that of -infinity.
  const bool is_valid =
      extremes.largest < kInfinityKey && extremes.largest > kMinusInfinityKey && extremes.lowest >= kMinusInfinityKey;
  if (!is_valid || settings.temperature == 0.0) {
    if (threadIdx.x == 0) *token = is_valid ? extremes.largest_id : ops::kNoToken;
    return;
  }

  const Scale scale = make_scale(extremes, settings.temperature, weight_bits);
  clear_bins(s.bins);
  for_each(row, static_cast<int>(threadIdx.x), vocab, kThreads, [&](float logit, int) {
    const uint64_t weight = scale.weight(logit);
    if (weight > 0) add_to_bin(s.bins, scale.bin(logit), weight);
  });
  Tally total;
  const Bin first = read_bins(s.bins, &total);

  // Each search keeps a prefix of the candidates, so their order never changes.
  uint64_t kept = total.weight;
  for (int search = 0; search < 3; ++search) {
    const bool is_top_k = search == 0;
    const bool is_top_p = search == 1;
    uint64_t target = 0;
    if (is_top_k) {
      if (settings.top_k == 0 || settings.top_k >= total.count) continue;
      target = static_cast<uint64_t>(settings.top_k) - 1;
    } else if (is_top_p) {
      if (settings.top_p >= 1.0) continue;
      const uint64_t goal = __double2ull_ru(settings.top_p * static_cast<double>(kept));
      target = min(max(goal, uint64_t{1}), kept) - 1;
    } else {
      const uint64_t passed = __double2ull_rd(settings.uniform * static_cast<double>(kept));
      target = min(passed, kept - 1);
    }
    const Place place = find_place(s, row, vocab, scale, extremes, first, is_top_k, target);
    const uint64_t rest = target - measure(place.before, is_top_k);
    const uint64_t skip = is_top_k ? rest : rest / place.each;
    kept = place.before.weight + (skip + 1) * place.each;
    if (search == 2) write_member(s, row, vocab, scale, place, static_cast<uint32_t>(skip), token);
  }
}

}  // namespace

void launch_pick_tokens(const PickTokensParams& p, cudaStream_t stream) {
  EPS_CUDA_REQUIRE(p.vocab >= 1);
  EPS_CUDA_REQUIRE_LE(p.vocab, kMaxPickVocab);
  if (p.rows == 0) return;
  int weight_bits = 62;  // so that `vocab` weights of 1 sum to at most 2^62
  while ((int64_t{1} << (62 - weight_bits)) < p.vocab) --weight_bits;
  launch_overlapped(pick_tokens_kernel, {.grid = static_cast<unsigned>(p.rows), .threads = kThreads}, stream, p.logits,
                    p.params, static_cast<int>(p.vocab), weight_bits, p.tokens);
}

}  // namespace eps::cuda
