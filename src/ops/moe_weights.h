// The weights of one MoE layer on one rank.
#pragma once

#include <vector>

#include "ops/op_set.h"

namespace eps::ops {

// Not owned.
struct MoeWeights {
  std::vector<const LinearWeight*> gate_up;      // [num_experts] each [2I, H]; null where the expert is on another rank
  std::vector<const LinearWeight*> down;         // [num_experts] each [H, I]
  const LinearWeight* shared_gate_up = nullptr;  // [2S, H]; null: no shared experts
  const LinearWeight* shared_down = nullptr;     // [H, S]
};

}  // namespace eps::ops
