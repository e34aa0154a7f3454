// The model of a simulation: its description, and the types that its weights and activations would have.
#pragma once

#include <string>

#include "arch/model_spec.h"

namespace eps::sim {

struct SimulatedModel {
  std::string name;  // of a preset or a folder
  arch::ModelSpec spec;
  DType weight_dtype = DType::kBF16;  // of all matrices except embedding, router and output
  DType act_dtype = DType::kBF16;

  plan::MoeShape moe() const { return arch::moe_shape(spec, weight_dtype, act_dtype); }
};

// Errors  kUsage, listing the presets
SimulatedModel preset_model(std::string_view name);

// The memory of one rank in GB: weights, KV cache for `tokens_per_rank` tokens per rank and the working memory of one
// MoE layer. Attention is split over the ranks if the strategy has tensor-parallel attention, else every rank has all
// of it; experts are always distributed.
double memory_gb_per_rank(const SimulatedModel& model, plan::Strategy strategy, int num_ranks, int64_t tokens_per_rank);

}  // namespace eps::sim
