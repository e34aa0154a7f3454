#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/device/warp_scan.cuh"
#include "ops/cuda/kernels/exchange/row_slots.h"

namespace eps::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxChunks = 128;  // one block each

// The number of tokens in a chunk, one or more per thread.
int64_t chunk_tokens(const TokenCounts& counts) {
  const int64_t tokens = int64_t{counts.num_ranks} * counts.max_tokens;
  return ceil_div(ceil_div(tokens, kMaxChunks), kThreads) * kThreads;
}
int64_t num_chunks(const TokenCounts& counts) {
  return ceil_div(int64_t{counts.num_ranks} * counts.max_tokens, chunk_tokens(counts));
}

// Rows are counted by slot, and tokens of other ranks by their first stage and by their last one: three ranges of bins.
struct LayoutBins {
  int num_slots;
  int num_stages;
  __host__ __device__ int first(int stage) const { return num_slots + stage; }
  __host__ __device__ int last(int stage) const { return num_slots + num_stages + stage; }
  __host__ __device__ int size() const { return num_slots + 2 * num_stages; }
};

// Calls row(index of the row, its slot or -1) for each row of this block's tokens, then travels(token, first stage,
// last stage) if the token comes from another rank and has rows here.
template <typename Row, typename Travels>
__device__ __forceinline__ void visit_chunk(const RowLayoutParams& p, const SlotTable& table, int chunk, const Row& row,
                                            const Travels& travels) {
  const int64_t all = int64_t{p.counts.num_ranks} * p.counts.max_tokens;
  const int64_t begin = int64_t{blockIdx.x} * chunk;
  const int64_t end = min(begin + chunk, all);
  for (int64_t token = begin + threadIdx.x; token < end; token += kThreads) {
    const int home = static_cast<int>(token / p.counts.max_tokens);
    const int index = static_cast<int>(token % p.counts.max_tokens);
    const int num_tokens = p.counts.tokens[home];
    const bool is_own = home == p.counts.rank;
    const int part = (is_own ? 2 : 0) + (index >= (num_tokens + 1) / 2 ? 1 : 0);
    int first = kMaxSlots;
    int last = -1;
    for (int k = 0; k < p.top_k; ++k) {
      const int64_t at = token * p.top_k + k;
      const int slot = index < num_tokens ? table.slot[p.expert_idx[at]][part] : -1;
      row(at, slot);
      if (slot < 0) continue;
      const int stage = table.stage_of_slot[slot];
      first = min(first, stage);
      last = max(last, stage);
    }
    if (!is_own && last >= 0) travels(static_cast<int32_t>(token), first, last);
  }
}

// Counts the rows and tokens of this block's chunk in count[bin], which is in shared memory.
__device__ __forceinline__ void count_chunk(const RowLayoutParams& p, const SlotTable& table, const LayoutBins& bins,
                                            int chunk, int* count) {
  visit_chunk(
      p, table, chunk,
      [&](int64_t /*row*/, int slot) {
        if (slot >= 0) atomicAdd(&count[slot], 1);
      },
      [&](int32_t /*token*/, int first, int last) {
        atomicAdd(&count[bins.first(first)], 1);
        atomicAdd(&count[bins.last(last)], 1);
      });
}

__global__ void __launch_bounds__(kThreads)
    count_layout_kernel(const __grid_constant__ RowLayoutParams p, const __grid_constant__ SlotTable table, int chunk) {
  extern __shared__ int count[];
  const LayoutBins bins{table.num_slots, p.num_stages};
  for (int b = static_cast<int>(threadIdx.x); b < bins.size(); b += kThreads) count[b] = 0;
  __syncthreads();
  wait_for_previous_kernel();
  count_chunk(p, table, bins, chunk, count);
  __syncthreads();
  auto* counts = static_cast<int*>(p.workspace) + int64_t{blockIdx.x} * bins.size();
  for (int b = static_cast<int>(threadIdx.x); b < bins.size(); b += kThreads) counts[b] = count[b];
}

// Computes all places. kOneChunk: there is only one chunk, and count_layout_kernel was not launched.
template <bool kOneChunk>
__global__ void __launch_bounds__(kThreads)
    place_layout_kernel(const __grid_constant__ RowLayoutParams p, const __grid_constant__ SlotTable table, int chunk) {
  extern __shared__ int next[];  // [bins] the next place in each bin, then [bins] the places taken by earlier chunks
  const LayoutBins bins{table.num_slots, p.num_stages};
  const int num_bins = bins.size();
  int* before = next + num_bins;
  const auto thread = static_cast<int>(threadIdx.x);
  for (int b = thread; b < 2 * num_bins; b += kThreads) next[b] = 0;
  __syncthreads();
  wait_for_previous_kernel();
  if constexpr (kOneChunk) {
    count_chunk(p, table, bins, chunk, next);
  } else {
    const auto* counts = static_cast<const int*>(p.workspace);
    const int own = static_cast<int>(blockIdx.x) * num_bins;
    for (int i = thread; i < static_cast<int>(gridDim.x) * num_bins; i += kThreads) {
      const int count = counts[i];
      if (count == 0) continue;
      atomicAdd(&next[i % num_bins], count);
      if (i < own) atomicAdd(&before[i % num_bins], count);
    }
  }
  __syncthreads();
  // One warp for each range of bins, which also writes the end of the last bin.
  const int range = thread / kWarp;
  if (range < 3) {
    int* values = next + (range == 0 ? 0 : range == 1 ? bins.first(0) : bins.last(0));
    const int count = range == 0 ? bins.num_slots : bins.num_stages;
    int32_t* out = range == 0 ? p.slot_offsets : range == 1 ? p.dispatch_begin : p.combine_begin;
    const int last = count > 0 ? values[count - 1] : 0;
    __syncwarp();
    exclusive_scan(values, count);
    __syncwarp();
    if (blockIdx.x == 0 && out != nullptr) {
      for (int i = thread % kWarp; i < count; i += kWarp) out[i] = values[i];
      if (thread % kWarp == 0) out[count] = (count > 0 ? values[count - 1] : 0) + last;
    }
  }
  if (blockIdx.x == 0) {
    for (int i = thread; i < table.num_slots; i += kThreads) p.weight_of_slot[i] = table.weight_of_slot[i];
  }
  __syncthreads();
  for (int b = thread; b < num_bins; b += kThreads) next[b] += before[b];
  __syncthreads();
  visit_chunk(
      p, table, chunk, [&](int64_t row, int slot) { p.place[row] = slot < 0 ? -1 : atomicAdd(&next[slot], 1); },
      [&](int32_t token, int first, int last) {
        p.dispatch_tokens[atomicAdd(&next[bins.first(first)], 1)] = token;
        p.combine_tokens[atomicAdd(&next[bins.last(last)], 1)] = token;
      });
}

// Counts the experts that one token has on each of up to 16 ranks, in one byte per rank.
class RankTally {
 public:
  __device__ void add(int rank) { word_[rank / 8] += uint64_t{1} << (rank % 8 * 8); }
  __device__ int of(int rank) const { return static_cast<int>(word_[rank / 8] >> (rank % 8 * 8) & 0xff); }

 private:
  uint64_t word_[kMaxRanks / 8] = {};
};

// Counts one token per thread; `idx` [tokens, top_k] is in shared memory.
__device__ void count_tokens(const RoutingCounts& at, int home, const int32_t* idx, int num_tokens, int32_t* count) {
  const int experts_per_rank = at.num_experts / at.num_ranks;
  const auto token = static_cast<int>(threadIdx.x);
  RankTally tally;
  for (int k = 0; k < at.top_k && token < num_tokens; ++k) {
    const int expert = idx[token * at.top_k + k];
    const int rank = expert / experts_per_rank;
    tally.add(rank);
    atomicAdd(&count[at.load() + expert], 1);
    if (rank == home) atomicAdd(&count[at.local_load() + expert], 1);
  }
  for (int rank = 0; rank < at.num_ranks; ++rank) {
    const int experts = tally.of(rank);
    // Added once per warp, because the tokens of a block all increment the same few counters.
    const unsigned wanted = __ballot_sync(~0U, experts > 0);
    if (threadIdx.x % kWarp == 0 && wanted != 0) {
      atomicAdd(&count[at.tokens_between() + home * at.num_ranks + rank], __popc(wanted));
    }
    if (experts > 0 && rank != home) atomicAdd(&count[at.visits() + rank * (at.top_k + 1) + experts], 1);
  }
}

// The grid has one row of blocks per rank. The memory of other ranks is read with ordinary loads: there are only a few
// hundred kilobytes, so latency matters more than bandwidth. The last block to end passes the sums on to the host,
// which is faster than a copy by another operation.
__global__ void __launch_bounds__(kThreads) gather_routing_kernel(const __grid_constant__ GatherRoutingParams p) {
  extern __shared__ int32_t smem[];  // [layout.size()] counts, then [kThreads, top_k] experts
  __shared__ bool is_last;
  const RoutingCounts at = p.layout;
  int32_t* count = smem;
  int32_t* experts = smem + at.size();
  const auto thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < at.size(); i += kThreads) count[i] = 0;
  wait_for_previous_kernel();
  const int home = static_cast<int>(blockIdx.y);
  const int num_tokens = p.counts.tokens[home];
  const int64_t to = int64_t{home} * p.counts.max_tokens * at.top_k;
  const auto step = static_cast<int>(gridDim.x) * kThreads;
  for (int begin = static_cast<int>(blockIdx.x) * kThreads; begin < num_tokens; begin += step) {
    const int here = min(kThreads, num_tokens - begin);
    __syncthreads();  // the experts of the previous tokens have been counted
    for (int i = thread; i < here * at.top_k; i += kThreads) {
      const int64_t row = int64_t{begin} * at.top_k + i;
      const int expert = p.from.idx[home][row];
      experts[i] = expert;
      p.idx[to + row] = expert;
      p.weight[to + row] = p.from.weight[home][row];
    }
    __syncthreads();
    count_tokens(at, home, experts, here, count);
  }
  __syncthreads();
  for (int i = thread; i < at.size(); i += kThreads) {
    if (count[i] != 0) atomicAdd(&p.sums[i], count[i]);
  }
  __threadfence();
  __syncthreads();
  if (thread == 0) {
    const auto blocks = static_cast<int>(gridDim.x * gridDim.y);
    is_last = atomicAdd(&p.sums[at.size()], 1) == blocks - 1;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  for (int i = thread; i < at.size(); i += kThreads) p.host_counts[i] = atomicExch(&p.sums[i], 0);
  if (thread == 0) p.sums[at.size()] = 0;
  __threadfence_system();
  __syncthreads();
  if (thread == 0) *static_cast<volatile uint32_t*>(p.host_done) = p.number;
}

}  // namespace

size_t row_layout_workspace_bytes(const TokenCounts& counts, int num_slots, int num_stages) {
  if (counts.max_tokens == 0) return 0;
  const LayoutBins bins{num_slots, num_stages};
  return static_cast<size_t>(num_chunks(counts) * bins.size()) * sizeof(int);
}

void launch_lay_out_rows(const RowLayoutParams& params, const SlotTable& table, cudaStream_t stream) {
  if (params.counts.max_tokens == 0) return;
  const auto chunk = static_cast<int>(chunk_tokens(params.counts));
  const auto chunks = static_cast<unsigned>(num_chunks(params.counts));
  const LayoutBins bins{table.num_slots, params.num_stages};
  const size_t bytes = static_cast<size_t>(bins.size()) * sizeof(int);
  if (chunks == 1) {
    launch_overlapped(place_layout_kernel<true>, {.grid = 1, .threads = kThreads, .shared_bytes = 2 * bytes}, stream,
                      params, table, chunk);
    return;
  }
  launch_overlapped(count_layout_kernel, {.grid = dim3(chunks), .threads = kThreads, .shared_bytes = bytes}, stream,
                    params, table, chunk);
  launch_overlapped(place_layout_kernel<false>, {.grid = dim3(chunks), .threads = kThreads, .shared_bytes = 2 * bytes},
                    stream, params, table, chunk);
}

void launch_gather_routing(const GatherRoutingParams& params, cudaStream_t stream) {
  const RoutingCounts& layout = params.layout;
  EPS_CUDA_REQUIRE(layout.num_ranks <= kMaxRanks && layout.num_experts % layout.num_ranks == 0);
  if (params.counts.max_tokens == 0) return;
  const size_t bytes = static_cast<size_t>(layout.size() + kThreads * layout.top_k) * sizeof(int32_t);
  EPS_CUDA_REQUIRE_LE(static_cast<int64_t>(bytes), 48 * 1024);
  const dim3 grid(static_cast<unsigned>(std::clamp<int64_t>(ceil_div(params.counts.max_tokens, kThreads), 1, 64)),
                  static_cast<unsigned>(layout.num_ranks));
  launch_overlapped(gather_routing_kernel, {.grid = grid, .threads = kThreads, .shared_bytes = bytes}, stream, params);
}

}  // namespace eps::cuda
