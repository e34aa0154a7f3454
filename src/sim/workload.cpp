#include "sim/workload.h"

#include <algorithm>
#include <charconv>

#include "arch/rank_part.h"
#include "base/error.h"
#include "sim/routing_sampler.h"

namespace eps::sim {
namespace {

// Tokens of all ranks that are sampled before they are counted. Bounds the memory: 48 bytes per token with top-6.
constexpr int64_t kTokensAtOnce = int64_t{1} << 19;
// Bounds the size of summaries, which have an entry for every pair of ranks.
constexpr int kMaxRanks = 1024;

void check_ranges(const SimulatedModel& model, const WorkloadOptions& options) {
  if (model.spec.num_moe_layers() < 1) {
    fail(ErrorKind::kUsage, "model",
         {.what = "has no experts", .got = model.name, .wanted = "a Mixture-of-Experts model", .hint = ""});
  }
  if (options.num_ranks < 1 || options.num_ranks > kMaxRanks) {
    fail(ErrorKind::kUsage, "ep",
         {.what = "number of ranks",
          .got = std::to_string(options.num_ranks),
          .wanted = fmt::format("1 to {}", kMaxRanks),
          .hint = ""});
  }
  if (options.tokens_per_rank < 1 || options.tokens_per_rank > kMaxTokensPerRank) {
    fail(ErrorKind::kUsage, "tokens",
         {.what = "tokens of each rank",
          .got = std::to_string(options.tokens_per_rank),
          .wanted = fmt::format("1 to {}", kMaxTokensPerRank),
          .hint = "a smaller batch, or more ranks"});
  }
}

void add(std::vector<int64_t>& total, const std::vector<int64_t>& part) {
  if (total.empty()) {
    total = part;
    return;
  }
  EPS_CHECK_EQ(total.size(), part.size());
  for (size_t i = 0; i < part.size(); ++i) total[i] += part[i];
}

void add(moe::RoutingSummary& total, const moe::RoutingSummary& part) {
  add(total.tokens_between, part.tokens_between);
  add(total.partials_between, part.partials_between);
  add(total.visits, part.visits);
  add(total.local_load, part.local_load);
}

// With tp+tp there is no dispatch by expert, and all ranks have all rows.
moe::RoutingSummary summary_without_dispatch(const plan::MoeProblem& problem) {
  const auto ranks = static_cast<size_t>(problem.placement.num_ranks);
  moe::RoutingSummary summary;
  summary.tokens_between.assign(ranks * ranks, 0);
  summary.partials_between.assign(ranks * ranks, 0);
  summary.visits.assign(ranks * (static_cast<size_t>(problem.shape.top_k) + 1), 0);
  summary.local_load = problem.load;
  return summary;
}

}  // namespace

Skew parse_skew(const std::string& text) {
  if (text == "uniform") return {};
  const std::string_view prefix = "dirichlet:";
  if (text.starts_with(prefix)) {
    double alpha = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + prefix.size(), end, alpha);
    if (error == std::errc() && stop == end && alpha >= 1e-3 && alpha <= 1e6) return {alpha};
  }
  fail(ErrorKind::kUsage, "skew",
       {.what = "unknown skew",
        .got = text,
        .wanted = "uniform, or dirichlet:ALPHA with ALPHA from 0.001 (one expert gets most) to 1000000 (even)",
        .hint = "dirichlet:0.3"});
}

std::vector<moe::Routing> random_routing(const RoutingParams& params) {
  RoutingSampler sampler(params);
  std::vector<moe::Routing> out;
  for (int rank = 0; rank < params.num_ranks; ++rank) out.push_back(sampler.next(rank, params.tokens_per_rank));
  return out;
}

plan::MoeProblem make_problem(const SimulatedModel& model, plan::Strategy strategy, const WorkloadOptions& options) {
  check_ranges(model, options);
  const ops::GateParams& gate = model.spec.moe.gate;
  arch::check_split(model.spec, strategy, options.num_ranks, model.name);
  plan::MoeProblem problem;
  problem.shape = model.moe();
  problem.strategy = strategy;
  problem.placement = strategy == plan::Strategy::kTpTp ? moe::ExpertPlacement{gate.num_experts, options.num_ranks}
                                                        : moe::place_experts(gate.num_experts, options.num_ranks);
  problem.tokens_per_rank.assign(static_cast<size_t>(options.num_ranks), options.tokens_per_rank);
  problem.wire = options.wire;
  problem.may_use = options.may_use;

  RoutingSampler sampler({.num_ranks = options.num_ranks,
                          .tokens_per_rank = options.tokens_per_rank,
                          .num_experts = gate.num_experts,
                          .top_k = gate.top_k,
                          .num_groups = gate.limits_groups() ? gate.num_groups : 1,
                          .topk_group = gate.limits_groups() ? gate.topk_group : 1,
                          .skew = options.skew,
                          .seed = options.seed});
  const int64_t stretch = std::max<int64_t>(1, kTokensAtOnce / options.num_ranks);
  for (int64_t begin = 0; begin < options.tokens_per_rank; begin += stretch) {
    std::vector<moe::Routing> routing;
    for (int rank = 0; rank < options.num_ranks; ++rank) {
      routing.push_back(sampler.next_experts(rank, std::min(stretch, options.tokens_per_rank - begin)));
    }
    add(problem.load, moe::count_rows(routing, gate.num_experts));
    if (strategy != plan::Strategy::kTpTp) add(problem.routing, moe::summarize_routing(routing, problem.placement));
  }
  if (strategy == plan::Strategy::kTpTp) problem.routing = summary_without_dispatch(problem);
  plan::check_problem(problem);
  return problem;
}

}  // namespace eps::sim
