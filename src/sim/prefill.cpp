#include "sim/prefill.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "plan/virtual_clock.h"

namespace eps::sim {
namespace {

constexpr int64_t kMaxTokensPerRank = int64_t{1} << 20;  // the limit of make_problem, checked here for other flags

void check_at_least_one(const char* flag, int64_t value, int64_t most) {
  if (value >= 1 && value <= most) return;
  fail(ErrorKind::kUsage, flag,
       {.what = "out of range", .got = std::to_string(value), .wanted = fmt::format("1 to {}", most), .hint = ""});
}

void check_batch(const PrefillOptions& options) {
  constexpr int64_t kMost = int64_t{1} << 30;  // so that products of two do not overflow 64 bits
  const PrefillBatch& batch = options.batch;
  check_at_least_one("ep", options.num_ranks, 1024);
  check_at_least_one("batch", batch.batch, kMost);
  check_at_least_one("seq_len", batch.sequence_length, kMaxTokensPerRank);
  if (options.strategy == plan::Strategy::kDpEp && batch.batch % options.num_ranks != 0) {
    fail(ErrorKind::kUsage, "batch",
         {.what = "dp+ep gives every rank the same number of sequences",
          .got = std::to_string(batch.batch),
          .wanted = fmt::format("a multiple of `ep` {}", options.num_ranks),
          .hint = ""});
  }
  const int64_t own = (batch.tokens() + options.num_ranks - 1) / options.num_ranks;
  if (own > kMaxTokensPerRank) {
    fail(ErrorKind::kUsage, "batch",
         {.what = "batch times sequence length is too large",
          .got = fmt::format("{} tokens per rank", own),
          .wanted = fmt::format("at most {}", kMaxTokensPerRank),
          .hint = ""});
  }
}

// Layers [0, num_layers) are assigned to `num_loads` loads in turn: the number of layers that have load `i`.
int layers_with(int i, int num_layers, int num_loads) {
  return num_layers / num_loads + (i < num_layers % num_loads ? 1 : 0);
}

const plan::Candidate& chosen_of(const plan::Plan& plan) {
  const auto it = std::ranges::find(plan.candidates, plan::Verdict::kChosen, &plan::Candidate::verdict);
  EPS_CHECK(it != plan.candidates.end(), "a plan without a chosen candidate");
  return *it;
}

}  // namespace

std::vector<plan::MoeProblem> prefill_problems(const SimulatedModel& model, const PrefillOptions& options) {
  check_batch(options);
  const int loads = std::clamp(options.num_loads, 1, std::max(1, model.spec.num_moe_layers()));
  std::vector<plan::MoeProblem> out;
  for (int i = 0; i < loads; ++i) {
    out.push_back(make_problem(model, options.strategy,
                               {.num_ranks = options.num_ranks,
                                .tokens_per_rank = (options.batch.tokens() + options.num_ranks - 1) / options.num_ranks,
                                .skew = options.skew,
                                .seed = options.seed + static_cast<uint64_t>(i),
                                .wire = options.wire,
                                .may_use = options.may_use}));
  }
  return out;
}

PrefillResult simulate_prefill(const SimulatedModel& model, const plan::HardwareProfile& profile,
                               const PrefillOptions& options, std::span<const plan::MoeProblem> problems) {
  check_batch(options);
  EPS_CHECK(!problems.empty());
  const PrefillBatch& batch = options.batch;
  const DecoderCost cost(model, profile, options.strategy, options.num_ranks);
  const int moe_layers = model.spec.num_moe_layers();
  PrefillResult result;
  result.strategy = options.strategy;
  PrefillParts& parts = result.parts;

  const double all_reduce = cost.all_reduce_us(batch);
  const double norm = cost.norm_us(cost.attention_tokens(batch));
  parts.embedding_us = cost.embedding_us(batch);
  parts.projections_us = model.spec.num_layers() * cost.projections_us(batch);
  std::map<int64_t, int> layers_by_window;
  for (const arch::LayerSpec& layer : model.spec.layers) ++layers_by_window[layer.window];
  for (const auto& [window, layers] : layers_by_window) parts.scores_us += layers * cost.scores_us(batch, window);
  // Norms before attention in every layer, before the FFN of dense layers, and at the end.
  parts.norms_us = (model.spec.num_layers() + model.spec.num_dense_layers() + 1) * norm +
                   moe_layers * cost.norm_us(cost.moe_tokens(batch));
  parts.gate_us = moe_layers * cost.gate_us(cost.moe_tokens(batch));
  parts.dense_ffn_us =
      model.spec.num_dense_layers() * cost.dense_ffn_us(batch) + moe_layers * cost.residual_ffn_us(batch);
  // Collectives of the embedding, whose table is split, and two per dense layer. Those of MoE layers are ops of their
  // plans.
  parts.collectives_us = (1 + 2 * model.spec.num_dense_layers()) * all_reduce;
  parts.lm_head_us = cost.lm_head_us(batch);

  const plan::Planner planner(profile, model.moe(), options.limits);
  const int num_loads = static_cast<int>(problems.size());
  for (int i = 0; i < num_loads; ++i) {
    const plan::MoeProblem& problem = problems[static_cast<size_t>(i)];
    const plan::Plan plan = planner.plan(problem, options.pipeline);
    const int layers = layers_with(i, moe_layers, num_loads);
    // Simulated because the planner's makespan assumes a rank that is always as slow as the slowest one; here every
    // rank has its own load.
    const double us = plan::end_of(planner.simulate(plan, problem));
    parts.moe_us += layers * us;
    result.loads.push_back({layers, us, chosen_of(plan), plan.reason});
  }
  result.moe_layer_us = moe_layers > 0 ? parts.moe_us / moe_layers : 0;
  result.ttft_us = parts.total_us();
  result.tokens_per_s = static_cast<double>(batch.tokens()) * 1e6 / result.ttft_us;
  result.memory_gb = memory_gb_per_rank(model, options.strategy, options.num_ranks, cost.own_tokens(batch));
  result.fits = profile.memory_gb <= 0 || result.memory_gb <= profile.memory_gb;
  return result;
}

PrefillResult simulate_prefill(const SimulatedModel& model, const plan::HardwareProfile& profile,
                               const PrefillOptions& options) {
  return simulate_prefill(model, profile, options, prefill_problems(model, options));
}

}  // namespace eps::sim
