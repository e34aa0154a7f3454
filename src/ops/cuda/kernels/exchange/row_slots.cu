#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/exchange/row_slots.h"

namespace eps::cuda {
namespace {

constexpr int kThreads = 256;

// One thread for each token of every rank.
__global__ void __launch_bounds__(kThreads)
    assign_row_slots_kernel(const __grid_constant__ RowSlotParams p, const __grid_constant__ SlotTable table) {
  wait_for_previous_kernel();
  if (blockIdx.x == 0) {
    for (int i = static_cast<int>(threadIdx.x); i < table.num_slots; i += kThreads) {
      p.weight_of_slot[i] = table.weight_of_slot[i];
    }
  }
  const int64_t token = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (token >= int64_t{p.counts.num_ranks} * p.counts.max_tokens) return;
  const int home = static_cast<int>(token / p.counts.max_tokens);
  const int index = static_cast<int>(token % p.counts.max_tokens);
  const int num_tokens = p.counts.tokens[home];
  const bool is_own = home == p.counts.rank;
  const int part = (is_own ? 2 : 0) + (index >= (num_tokens + 1) / 2 ? 1 : 0);
  int first = kMaxSlots;
  int last = -1;
  for (int k = 0; k < p.top_k; ++k) {
    const int64_t row = token * p.top_k + k;
    const int slot = index < num_tokens ? table.slot[p.expert_idx[row]][part] : -1;
    p.slot[row] = slot;
    if (slot < 0) continue;
    const int stage = table.stage_of_slot[slot];
    first = min(first, stage);
    last = max(last, stage);
  }
  const bool travels = !is_own && last >= 0;
  p.first_stage[token] = travels ? first : -1;
  p.last_stage[token] = travels ? last : -1;
}

// The grid has one row of blocks per rank. The memory of other ranks is read with ordinary loads: there are only a few
// hundred kilobytes, so latency matters more than bandwidth.
__global__ void __launch_bounds__(kThreads) gather_routing_kernel(const __grid_constant__ GatherRoutingParams p) {
  wait_for_previous_kernel();
  const int rank = static_cast<int>(blockIdx.y);
  const int count = p.counts.tokens[rank] * p.top_k;
  const int64_t to = int64_t{rank} * p.counts.max_tokens * p.top_k;
  const auto step = static_cast<int>(gridDim.x) * kThreads;
  for (int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); i < count; i += step) {
    p.idx[to + i] = p.from.idx[rank][i];
    p.weight[to + i] = p.from.weight[rank][i];
  }
}

// Counts the experts that one token has on each of up to 16 ranks, in one byte per rank.
class RankTally {
 public:
  __device__ void add(int rank) { word_[rank / 8] += uint64_t{1} << (rank % 8 * 8); }
  __device__ int of(int rank) const { return static_cast<int>(word_[rank / 8] >> (rank % 8 * 8) & 0xff); }

 private:
  uint64_t word_[kMaxRanks / 8] = {};
};

// One thread per token; the grid has one row of blocks per rank.
__global__ void __launch_bounds__(kThreads) count_routing_kernel(const __grid_constant__ CountRoutingParams p) {
  extern __shared__ int32_t count[];
  const RoutingCounts at = p.layout;
  for (int i = static_cast<int>(threadIdx.x); i < at.size(); i += kThreads) count[i] = 0;
  __syncthreads();
  wait_for_previous_kernel();
  const int home = static_cast<int>(blockIdx.y);
  const int num_tokens = p.counts.tokens[home];
  const int experts_per_rank = at.num_experts / at.num_ranks;
  const int32_t* idx = p.idx + int64_t{home} * p.counts.max_tokens * at.top_k;
  const auto step = static_cast<int>(gridDim.x) * kThreads;
  for (int begin = static_cast<int>(blockIdx.x) * kThreads; begin < num_tokens; begin += step) {
    const int token = begin + static_cast<int>(threadIdx.x);
    RankTally tally;
    for (int k = 0; k < at.top_k && token < num_tokens; ++k) {
      const int expert = idx[int64_t{token} * at.top_k + k];
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
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < at.size(); i += kThreads) {
    if (count[i] != 0) atomicAdd(&p.out[i], count[i]);
  }
}

dim3 rank_grid(const TokenCounts& counts, int top_k) {
  const int64_t rows = int64_t{counts.max_tokens} * top_k;
  return {static_cast<unsigned>(std::clamp<int64_t>(ceil_div(rows, 4 * kThreads), 1, 64)),
          static_cast<unsigned>(counts.num_ranks)};
}

}  // namespace

void launch_assign_row_slots(const RowSlotParams& params, const SlotTable& table, cudaStream_t stream) {
  const int64_t tokens = int64_t{params.counts.num_ranks} * params.counts.max_tokens;
  if (tokens == 0) return;
  launch_overlapped(assign_row_slots_kernel, {dim3(static_cast<unsigned>(ceil_div(tokens, kThreads))), kThreads},
                    stream, params, table);
}

void launch_gather_routing(const GatherRoutingParams& params, cudaStream_t stream) {
  if (params.counts.max_tokens == 0) return;
  launch_overlapped(gather_routing_kernel, {rank_grid(params.counts, params.top_k), kThreads}, stream, params);
}

void launch_count_routing(const CountRoutingParams& params, cudaStream_t stream) {
  const RoutingCounts& layout = params.layout;
  EPS_CUDA_REQUIRE(layout.num_ranks <= kMaxRanks && layout.num_experts % layout.num_ranks == 0);
  const size_t bytes = static_cast<size_t>(layout.size()) * sizeof(int32_t);
  EPS_CUDA(cudaMemsetAsync(params.out, 0, bytes, stream));
  if (params.counts.max_tokens == 0) return;
  // Not launched early: the operation before it is the memset, which must be complete.
  count_routing_kernel<<<rank_grid(params.counts, layout.top_k), kThreads, bytes, stream>>>(params);
  EPS_CUDA_LAUNCHED(count_routing_kernel);
}

}  // namespace eps::cuda
