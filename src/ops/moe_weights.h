// The weights of one MoE layer on one rank.
#pragma once

#include <vector>

#include "ops/op_set.h"

namespace eps::ops {

// Not owned.
struct RouterWeights {
  const LinearWeight* weight = nullptr;  // [num_experts, H], f32
  TensorView bias = {};                  // [num_experts] f32, added to the logits; empty: none
  TensorView correction = {};            // [num_experts] f32, see OpSet::gate; empty: none
};

// Not owned.
struct MoeWeights {
  std::vector<const LinearWeight*> gate_up;      // [num_experts] each [2I, H]; null where the expert is on another rank
  std::vector<const LinearWeight*> down;         // [num_experts] each [H, I]
  TensorView gate_up_bias = {};                  // [local experts, 2I] f32; empty: there are no biases
  TensorView down_bias = {};                     // [local experts, H] f32; empty: none, or another rank adds them
  SwigluParams swiglu;                           // of the experts; the shared experts always have the plain one
  const LinearWeight* shared_gate_up = nullptr;  // [2S, H]; null: no shared experts
  const LinearWeight* shared_down = nullptr;     // [H, S]
  const LinearWeight* shared_gate = nullptr;     // [1, H]; null: the shared experts' output is added as it is
};

}  // namespace eps::ops
