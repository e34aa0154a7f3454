#include "sim/simulated_model.h"

#include <algorithm>

#include "arch/presets.h"
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
  const double ranks = num_ranks;
  const double over_heads = heads_split ? ranks : 1;
  const double over_inner = experts_split ? ranks : 1;
  const auto act = static_cast<double>(size_of(model.act_dtype));
  const auto weight = static_cast<double>(size_of(model.weight_dtype));
  const auto hidden = static_cast<double>(spec.hidden);

  double attention = 0;
  for (const Projection& p : attention_projections(spec.attention, spec.hidden)) {
    const Projection part = heads_split ? part_of(p, spec.attention, num_ranks) : p;
    attention += static_cast<double>(part.n) * static_cast<double>(part.k);
  }
  const double experts = spec.moe.gate.num_experts * 3.0 * hidden * static_cast<double>(spec.moe.inner) / ranks;
  const double beside =
      3.0 * hidden * static_cast<double>(spec.moe.shared_inner + spec.moe.residual_inner) / over_inner;
  const double dense = 3.0 * hidden * static_cast<double>(spec.dense_inner()) / over_heads;
  const double linear =
      spec.num_layers() * attention + spec.num_moe_layers() * (experts + beside) + spec.num_dense_layers() * dense;
  // Embedding, head, router and norms are stored in the activations' type.
  const double rest = static_cast<double>(spec.vocab_size) * hidden * (spec.tie_embeddings ? 1 : 2) / over_heads +
                      spec.num_moe_layers() * static_cast<double>(spec.moe.gate.num_experts) * hidden;

  const double own = static_cast<double>(tokens_per_rank);
  const double seen = heads_split ? own * ranks : own;  // tokens that attention on this rank processes
  double cached = static_cast<double>(spec.attention.cache_elements_per_token());
  if (heads_split && spec.attention.grouped() != nullptr) cached /= std::min(num_ranks, spec.attention.num_kv_heads());
  const double cache = spec.num_layers() * seen * cached;

  // Working memory of an MoE layer: the residual stream, its normalised copy and the output; for every row its input
  // and output, and its gate, up and product.
  const double rows = own * spec.moe.gate.top_k * (experts_split ? ranks : 1);
  const double working = 3 * seen * hidden + rows * (2 * hidden + 3 * static_cast<double>(spec.moe.inner) / over_inner);
  return (linear * weight + (rest + cache + working) * act) / kBytesPerGb;
}

}  // namespace eps::sim
