#include "sim/simulated_model.h"

#include "arch/presets.h"
#include "arch/rank_part.h"
#include "base/error.h"
#include "sim/projections.h"

namespace eps::sim {
namespace {

constexpr double kBytesPerGb = 1e9;

}  // namespace

SimulatedModel preset_model(std::string_view name) {
  return {.name = std::string(name), .spec = arch::preset_spec(name)};
}

double memory_gb_per_rank(const SimulatedModel& model, plan::Strategy strategy, int num_ranks,
                          int64_t tokens_per_rank) {
  const bool heads_split = strategy != plan::Strategy::kDpEp;
  const bool experts_split = strategy == plan::Strategy::kTpTp;  // by inner size, instead of assigned whole
  const arch::ModelSpec& spec = model.spec;
  const arch::ModelSpec part = arch::part_of(spec, strategy, num_ranks);
  const double ranks = num_ranks;
  const double over_heads = heads_split ? ranks : 1;
  const auto act = static_cast<double>(size_of(model.act_dtype));
  const auto weight = static_cast<double>(size_of(model.weight_dtype));
  const auto hidden = static_cast<double>(spec.hidden);

  double attention = 0;
  for (const Projection& p : attention_projections(part.attention, part.hidden)) {
    attention += static_cast<double>(p.n) * static_cast<double>(p.k);
  }
  const double experts = spec.moe.gate.num_experts * 3.0 * hidden * static_cast<double>(spec.moe.inner) / ranks;
  const double beside = 3.0 * hidden * static_cast<double>(part.moe.shared_inner + part.moe.residual_inner);
  const double dense = 3.0 * hidden * static_cast<double>(part.dense_inner());
  const double linear =
      spec.num_layers() * attention + spec.num_moe_layers() * (experts + beside) + spec.num_dense_layers() * dense;
  // Embedding, head, router and norms are stored in the activations' type.
  const double rest = static_cast<double>(spec.vocab_size) * hidden * (spec.tie_embeddings ? 1 : 2) / over_heads +
                      spec.num_moe_layers() * static_cast<double>(spec.moe.gate.num_experts) * hidden;

  const double own = static_cast<double>(tokens_per_rank);
  const double seen = heads_split ? own * ranks : own;  // tokens that attention on this rank processes
  const double cache = spec.num_layers() * seen * static_cast<double>(part.attention.cache_elements_per_token());

  // Working memory of an MoE layer: the residual stream, its normalised copy and the output; for every row its input
  // and output, and its gate, up and product.
  const double rows = own * spec.moe.gate.top_k * (experts_split ? ranks : 1);
  const double working = 3 * seen * hidden + rows * (2 * hidden + 3 * static_cast<double>(part.moe.inner));
  return (linear * weight + (rest + cache + working) * act) / kBytesPerGb;
}

}  // namespace eps::sim
