#include "arch/rank_part.h"

#include <algorithm>

#include "base/error.h"

namespace eps::arch {
namespace {

void require_divides(int num_ranks, int64_t size, std::string_view what, plan::Strategy strategy,
                     const std::string& model) {
  if (size % num_ranks == 0) return;
  fail(ErrorKind::kUsage, "ep",
       {.what = fmt::format("{} splits the {} {} of {} evenly", plan::to_string(strategy), size, what, model),
        .got = std::to_string(num_ranks),
        .wanted = fmt::format("a divisor of {}", size),
        .hint = strategy == plan::Strategy::kTpEp ? "`strategy` dp+ep" : ""});
}

bool splits_heads(plan::Strategy strategy) { return strategy != plan::Strategy::kDpEp; }
bool splits_experts(plan::Strategy strategy) { return strategy == plan::Strategy::kTpTp; }

}  // namespace

void check_split(const ModelSpec& spec, plan::Strategy strategy, int num_ranks, const std::string& model) {
  if (!splits_heads(strategy) || num_ranks == 1) return;
  const auto require = [&](int64_t size, std::string_view what) {
    require_divides(num_ranks, size, what, strategy, model);
  };
  const AttentionSpec& a = spec.attention;
  require(a.num_heads(), "attention heads");
  if (a.grouped() != nullptr) {
    // Ranks may share copies of key-value heads, but then a norm over all of them would count some twice.
    const bool may_copy = a.grouped()->qk_norm != QkNorm::kWhole && num_ranks % a.num_kv_heads() == 0;
    if (!may_copy) require(a.num_kv_heads(), "key-value heads");
  }
  for (const LayerSpec& layer : spec.layers) {
    if (!layer.is_moe()) require(layer.dense_inner, "dense FFN columns");
  }
  if (!splits_experts(strategy) || spec.num_moe_layers() == 0) return;
  require(spec.moe.inner, "columns of an expert");
  require(spec.moe.shared_inner, "shared experts' columns");
  require(spec.moe.residual_inner, "residual FFN columns");
}

ModelSpec part_of(const ModelSpec& spec, plan::Strategy strategy, int num_ranks) {
  ModelSpec part = spec;
  if (!splits_heads(strategy) || num_ranks == 1) return part;
  if (auto* latent = std::get_if<LatentAttention>(&part.attention.kind)) {
    latent->mla.num_heads /= num_ranks;
  } else {
    ops::GqaParams& gqa = std::get<GroupedAttention>(part.attention.kind).gqa;
    gqa.num_heads /= num_ranks;
    gqa.num_kv_heads = std::max(1, gqa.num_kv_heads / num_ranks);
  }
  for (LayerSpec& layer : part.layers) layer.dense_inner /= num_ranks;
  if (!splits_experts(strategy)) return part;
  part.moe.inner /= num_ranks;
  part.moe.shared_inner /= num_ranks;
  part.moe.residual_inner /= num_ranks;
  return part;
}

Slice slice_of_rank(int64_t whole, int64_t part, int rank, int num_ranks) {
  EPS_CHECK(part > 0 && whole % part == 0, "{} elements in parts of {}", whole, part);
  const int64_t num_parts = whole / part;
  EPS_CHECK(num_ranks % num_parts == 0, "{} parts for {} ranks", num_parts, num_ranks);
  return {rank * num_parts / num_ranks * part, part};
}

double parameters_of_rank(const ModelSpec& spec, plan::Strategy strategy, int num_ranks) {
  const ModelSpec part = part_of(spec, strategy, num_ranks);
  const int64_t total = part.total_parameters();
  if (part.num_moe_layers() == 0 || splits_experts(strategy)) return static_cast<double>(total);
  const double routed = static_cast<double>(part.num_moe_layers()) * part.moe.gate.num_experts *
                        static_cast<double>(part.expert_parameters());
  return static_cast<double>(total) - routed + routed / num_ranks;
}

}  // namespace eps::arch
