// Random layers and a made-up machine for tests of planning.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "moe/routing.h"
#include "plan/planner.h"

namespace eps::test {

// A GPU-like machine with round numbers: 8 SMs, of which communication may take 1 or 2.
inline plan::HardwareProfile made_up_profile() {
  plan::HardwareProfile p;
  p.name = "made-up";
  p.num_sms = 8;
  p.ranks_per_node = 4;
  p.memory_gb = 16;
  p.memory_gbps = 100;
  for (const moe::GemmKind kind : {moe::GemmKind::kDense, moe::GemmKind::kGrouped}) {
    const bool dense = kind == moe::GemmKind::kDense;
    plan::GemmProfile gemm{kind, DType::kF32, dense ? 3.0 : 8.0, {}, {}, {}};
    // With a step in the middle, as measured curves have: rows cut in two there take less time than whole.
    gemm.shapes.push_back(
        {64, 32, {{1, 1.0}, {20, 1.2}, {24, dense ? 4.0 : 3.5}, {64, dense ? 4.2 : 4.0}, {1024, dense ? 16.0 : 18.0}}});
    if (!dense) gemm.group_factor = {{1, 1.0}, {8, 0.95}};
    if (!dense) gemm.sm_factor = {{6, 1.3}, {7, 1.12}, {8, 1.0}};
    p.gemms.push_back(gemm);
  }
  p.links = {{0, 4, 12}, {1, 6, 6}, {2, 10, 6}};
  p.inter_links = {{0, 2, 20}};
  p.contention = {0.05, 0.02, 0.3, 0.5};
  p.handoff_us = 1.5;
  for (const char* op : {"gather", "silu_mul", "reduce", "finish", "pack", "quantize"}) p.ops[op] = {0.5, 50};
  p.attention_tflops = 0.1;
  return p;
}

inline constexpr plan::MoeShape kMadeUpShape{32, 32, 16, 0, DType::kF32, DType::kF32};

enum class LoadKind : uint8_t { kEven, kEmpty, kAllToOne, kSkewed };

struct RandomLayer {
  std::vector<moe::Routing> routing;
  plan::MoeProblem problem;
};

// `top_k` of `num_experts` for each of up to `most_tokens` tokens of every rank.
inline RandomLayer random_layer(std::mt19937& rng, int num_experts, int num_ranks, int top_k, int most_tokens,
                                LoadKind kind) {
  const auto draw = [&rng](int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); };
  RandomLayer out;
  std::vector<int32_t> all(static_cast<size_t>(num_experts));
  std::iota(all.begin(), all.end(), 0);
  if (kind == LoadKind::kSkewed) std::shuffle(all.begin(), all.end(), rng);
  for (int r = 0; r < num_ranks; ++r) {
    moe::Routing routing{kind == LoadKind::kEmpty || draw(0, 4) == 0 ? 0 : draw(1, most_tokens), top_k, {}, {}};
    for (int64_t t = 0; t < routing.num_tokens; ++t) {
      if (kind == LoadKind::kEven) std::shuffle(all.begin(), all.end(), rng);
      // Skewed: the front of the list is drawn often.
      if (kind == LoadKind::kSkewed && draw(0, 3) == 0) {
        std::swap(all[static_cast<size_t>(draw(0, num_experts - 1))], all[static_cast<size_t>(draw(0, top_k - 1))]);
      }
      routing.expert_idx.insert(routing.expert_idx.end(), all.begin(), all.begin() + top_k);
    }
    routing.weight.assign(routing.expert_idx.size(), 1.0F);
    moe::normalize_routing(routing, num_experts);
    out.routing.push_back(std::move(routing));
  }
  plan::MoeShape shape = kMadeUpShape;
  shape.top_k = top_k;
  out.problem = plan::make_problem(shape, moe::place_experts(num_experts, num_ranks), out.routing);
  return out;
}

}  // namespace eps::test
