#include "ops/cuda/kernels/router/gate.h"

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"

namespace eps::cuda {
namespace {

// eps::ops::GateParams with a common form for all methods: num_groups = 1 is the plain greedy gate; with more groups,
// only experts of the best `topk_group` groups keep their scores.
struct GateConfig {
  int num_experts = 0;
  int top_k = 0;
  int num_groups = 1;  // divides num_experts
  int topk_group = 1;
  bool ranks_groups_by_two = false;  // by the sum of the two best choices, else by the best one
  bool norm_topk_prob = false;
  float routed_scaling_factor = 1.0F;
};

// Experts are compared by integer keys with the same order as their logits, so that a warp finds the best one with two
// reductions.
constexpr uint32_t kTakenKey = 0;           // less than every other key
constexpr uint32_t kZeroKey = 0x007fffffU;  // the key of -infinity: probability zero
// Below this, exp() underflows to zero even in f64, which the reference uses for ranking. Such experts tie with those
// of masked groups.
constexpr float kUnderflow = -745.2F;

__device__ __forceinline__ uint32_t rank_key(float x) {
  const uint32_t key = order_key(x);
  return key > kTakenKey ? key : kTakenKey + 1;  // a NaN must not have the key of an expert that is already selected
}

struct Best {
  uint32_t key;
  uint32_t index;
};
// Returns the largest key of the warp and the lowest index that has it.
__device__ __forceinline__ Best warp_best(Best mine) {
  const uint32_t key = __reduce_max_sync(~0U, mine.key);
  return {key, __reduce_min_sync(~0U, mine.key == key ? mine.index : ~0U)};
}

// A group has this key once it is chosen. A NaN may have it, too; its group then stays selected, and any choice is
// acceptable for NaN.
constexpr uint32_t kChosen = ~0U;

// group_key[g] = the key of the group's best expert. Lane l holds experts l, l + 32, …
template <int kPerLane>
__device__ void rank_groups_by_best(const uint32_t (&key)[kPerLane], const GateConfig& p, uint32_t* group_key) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int group_size = p.num_experts / p.num_groups;
  for (int g = lane; g < p.num_groups; g += kWarp) group_key[g] = kTakenKey;
  __syncwarp();
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + j * kWarp;
    if (e < p.num_experts) atomicMax(&group_key[e / group_size], key[j]);
  }
  __syncwarp();
}

// group_key[g] = the key of the sum of the group's two best choices, of which a lane holds every 32nd. `choices` is
// scratch memory for those of all experts.
template <int kPerLane>
__device__ void rank_groups_by_two(const float (&choice)[kPerLane], const GateConfig& p, float* choices,
                                   uint32_t* group_key) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int group_size = p.num_experts / p.num_groups;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + j * kWarp;
    if (e < p.num_experts) choices[e] = choice[j];
  }
  __syncwarp();
  for (int g = lane; g < p.num_groups; g += kWarp) {
    float best = -INFINITY;
    float second = -INFINITY;
    for (int i = 0; i < group_size; ++i) {
      const float c = choices[g * group_size + i];
      second = fmaxf(second, fminf(best, c));
      best = fmaxf(best, c);
    }
    group_key[g] = rank_key(best + second);
  }
  __syncwarp();
}

// Sets the keys of all experts outside the best groups to that of probability zero. Lane l holds experts l, l + 32, …
template <int kPerLane>
__device__ void mask_groups(uint32_t (&key)[kPerLane], const GateConfig& p, uint32_t* group_key) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int group_size = p.num_experts / p.num_groups;
  for (int i = 0; i < p.topk_group; ++i) {
    Best mine{kTakenKey, 0};
    for (int g = lane; g < p.num_groups; g += kWarp) {
      const uint32_t k = group_key[g];
      if (k != kChosen && k > mine.key) mine = {k, static_cast<uint32_t>(g)};
    }
    const Best best = warp_best(mine);
    if (best.key != kTakenKey && lane == 0) group_key[best.index] = kChosen;
    __syncwarp();
  }
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + j * kWarp;
    if (e < p.num_experts && group_key[e / group_size] != kChosen) key[j] = kZeroKey;
  }
  __syncwarp();
}

// Selects the experts with the largest keys, one at a time: the winner of each round gets a key that cannot win again.
// Lane k returns the k-th best.
template <int kPerLane>
__device__ Best select_best(uint32_t (&key)[kPerLane], const GateConfig& p) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Best chosen{kZeroKey, 0};
  for (int k = 0; k < p.top_k; ++k) {
    Best mine{kTakenKey, 0};
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (key[j] > mine.key) mine = {key[j], static_cast<uint32_t>(lane + j * kWarp)};
    }
    const Best best = warp_best(mine);
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (best.index == static_cast<uint32_t>(lane + j * kWarp)) key[j] = kTakenKey;
    }
    if (lane == k) chosen = best;
  }
  return chosen;
}

// What one warp selects for one token. `scratch` is in shared memory.
struct GateScratch {
  uint32_t group_key[kMaxGateExperts];
  float choices[kMaxGateExperts];
};

// Of softmax scores. Lane k returns the k-th best expert, and its score in `score`.
template <int kPerLane>
__device__ Best select_by_softmax(const float* logits, const GateConfig& p, GateScratch& scratch, float& score) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float logit[kPerLane];
  uint32_t top_key = kTakenKey;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + j * kWarp;
    logit[j] = e < p.num_experts ? logits[e] : -INFINITY;
    if (e < p.num_experts) top_key = max(top_key, rank_key(logit[j]));
  }
  const float top = key_value(__reduce_max_sync(~0U, top_key));
  uint32_t key[kPerLane];
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    sum += expf(logit[j] - top);
    key[j] = logit[j] - top < kUnderflow ? kZeroKey : rank_key(logit[j]);
    if (lane + j * kWarp >= p.num_experts) key[j] = kTakenKey;
  }
  sum = warp_sum(sum);
  if (p.num_groups > 1) {
    rank_groups_by_best(key, p, scratch.group_key);
    mask_groups(key, p, scratch.group_key);
  }
  const Best chosen = select_best(key, p);
  score = chosen.key == kZeroKey ? 0.0F : expf(key_value(chosen.key) - top) / sum;
  return chosen;
}

// More exact than the sigmoid of activations, because it decides which experts are chosen.
__device__ __forceinline__ float score_of(float logit) { return 1.0F / (1.0F + expf(-logit)); }

// The same of sigmoid scores. The correction takes part in the choice, but not in the score.
template <int kPerLane>
__device__ Best select_by_sigmoid(const float* logits, const float* correction, const GateConfig& p,
                                  GateScratch& scratch, float& score) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float choice[kPerLane];
  uint32_t key[kPerLane];
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + j * kWarp;
    choice[j] = e < p.num_experts ? score_of(logits[e]) : 0.0F;
    if (e < p.num_experts && correction != nullptr) choice[j] += correction[e];
    key[j] = e < p.num_experts ? rank_key(choice[j]) : kTakenKey;
  }
  if (p.num_groups > 1) {
    if (p.ranks_groups_by_two) {
      rank_groups_by_two(choice, p, scratch.choices, scratch.group_key);
    } else {
      rank_groups_by_best(key, p, scratch.group_key);
    }
    mask_groups(key, p, scratch.group_key);
  }
  const Best chosen = select_best(key, p);
  // Without a correction, an expert of a group that was left out scores zero.
  const bool is_masked = chosen.key == kZeroKey && correction == nullptr;
  score = lane < p.top_k && !is_masked ? score_of(logits[chosen.index]) : 0.0F;
  return chosen;
}

// One warp selects the experts of one token.
template <int kPerLane, ops::RouterScore kScore>
__device__ void gate_token(const float* logits, const float* correction, const GateConfig& p, GateScratch& scratch,
                           int32_t* idx, float* weight) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float score = 0.0F;
  const Best chosen = kScore == ops::RouterScore::kSoftmax
                          ? select_by_softmax<kPerLane>(logits, p, scratch, score)
                          : select_by_sigmoid<kPerLane>(logits, correction, p, scratch, score);
  const float total = warp_sum(score);
  if (lane < p.top_k) {
    idx[lane] = static_cast<int32_t>(chosen.index);
    weight[lane] = (p.norm_topk_prob ? score / (total + 1e-20F) : score) * p.routed_scaling_factor;
  }
}

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

template <int kPerLane, ops::RouterScore kScore>
__global__ void gate_topk_kernel(const float* logits, const float* correction, GateConfig p, int64_t rows, int32_t* idx,
                                 float* weight) {
  __shared__ GateScratch scratch[kWarps];
  wait_for_previous_kernel();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t row = int64_t{blockIdx.x} * kWarps + warp;
  if (row >= rows) return;
  gate_token<kPerLane, kScore>(logits + row * p.num_experts, correction, p, scratch[warp], idx + row * p.top_k,
                               weight + row * p.top_k);
}

// One block per expert computes its logit for every row (at most kRows), with kUnit elements per load. The first batch
// of weights is loaded before the wait for the input.
template <int kUnit, int kRows>
__global__ void __launch_bounds__(kThreads)
    router_kernel(const nv_bf16* x, const nv_bf16* w, int rows, int width, float* logits) {
  constexpr int kBatch = 4;
  constexpr int kStride = kThreads * kUnit;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  w += int64_t{blockIdx.x} * width;
  float wv[kBatch][kUnit];
  const auto load_weights = [&](int begin) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (begin + b * kStride < width) load(w + begin + b * kStride, wv[b]);
    }
  };
  int begin = static_cast<int>(threadIdx.x) * kUnit;
  load_weights(begin);
  wait_for_previous_kernel();
  float acc[kRows] = {};
  while (begin < width) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = begin + b * kStride;
      if (i >= width) break;
      float xv[kRows][kUnit] = {};
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r < rows) load(x + int64_t{r} * width + i, xv[r]);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kUnit; ++c) acc[r] = fmaf(xv[r][c], wv[b][c], acc[r]);
      }
    }
    begin += kBatch * kStride;
    load_weights(begin);
  }

  __shared__ float partial[kWarps][kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float sum = warp_sum(acc[r]);
    if (lane == 0) partial[warp][r] = sum;
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x);
  if (row < rows) {
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) sum += partial[i][row];
    logits[row * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x)] = sum;
  }
}

// Checks the gate. Its form for kernels has a single group if all groups are kept.
GateConfig checked(const SelectExpertsParams& p) {
  const ops::GateParams& gate = p.gate;
  EPS_CUDA_REQUIRE_LE(gate.num_experts, kMaxGateExperts);
  EPS_CUDA_REQUIRE_LE(gate.top_k, kMaxGateTopK);
  EPS_CUDA_REQUIRE_LE(gate.top_k, gate.num_experts);
  const bool by_two = gate.method == ops::TopkMethod::kGroupLimitedTop2;
  EPS_CUDA_REQUIRE(gate.score == ops::RouterScore::kSigmoid || (!gate.correction && !by_two));
  EPS_CUDA_REQUIRE(!gate.correction || p.correction != nullptr);
  GateConfig out{gate.num_experts, gate.top_k, 1, 1, by_two, gate.norm_topk_prob, gate.routed_scaling_factor};
  if (gate.limits_groups() && gate.topk_group < gate.num_groups) {
    EPS_CUDA_REQUIRE(gate.num_groups >= 1 && gate.num_experts % gate.num_groups == 0);
    EPS_CUDA_REQUIRE(!by_two || gate.num_experts / gate.num_groups >= 2);
    out.num_groups = gate.num_groups;
    out.topk_group = gate.topk_group;
  }
  return out;
}

template <ops::RouterScore kScore>
void launch_gate(const SelectExpertsParams& p, const GateConfig& config, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(p.rows, kWarps)));
  const auto run = [&](auto kernel) {
    launch_overlapped(kernel, {.grid = grid, .threads = kThreads}, stream, p.logits,
                      p.gate.correction ? p.correction : nullptr, config, p.rows, p.idx, p.weight);
  };
  // Kernels for as many values per lane as 64, 160 and 256 experts need (those of the supported models), then for any
  // number.
  if (config.num_experts <= 2 * kWarp) {
    run(gate_topk_kernel<2, kScore>);
  } else if (config.num_experts <= 5 * kWarp) {
    run(gate_topk_kernel<5, kScore>);
  } else if (config.num_experts <= 8 * kWarp) {
    run(gate_topk_kernel<8, kScore>);
  } else {
    run(gate_topk_kernel<kMaxGateExperts / kWarp, kScore>);
  }
}

}  // namespace

void launch_select_experts(const SelectExpertsParams& p, cudaStream_t stream) {
  const GateConfig config = checked(p);
  if (p.rows == 0) return;
  if (p.gate.score == ops::RouterScore::kSoftmax) {
    launch_gate<ops::RouterScore::kSoftmax>(p, config, stream);
  } else {
    launch_gate<ops::RouterScore::kSigmoid>(p, config, stream);
  }
}

void launch_score_experts(const ScoreExpertsParams& p, cudaStream_t stream) {
  if (p.rows == 0 || p.num_experts == 0) return;
  EPS_CUDA_REQUIRE_LE(p.rows, kMaxRouterRows);
  const auto run = [&](auto kernel) {
    launch_overlapped(kernel, {.grid = static_cast<unsigned>(p.num_experts), .threads = kThreads}, stream, p.x, p.w,
                      p.rows, p.width, p.logits);
  };
  const bool vectors = takes_vectors(p.width, p.x, p.w);
  if (p.rows == 1) {
    run(vectors ? router_kernel<kVector, 1> : router_kernel<1, 1>);
  } else {
    run(vectors ? router_kernel<kVector, kMaxRouterRows> : router_kernel<1, kMaxRouterRows>);
  }
}

}  // namespace eps::cuda
