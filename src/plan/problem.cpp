#include "plan/problem.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace eps::plan {
namespace {

constexpr int64_t kElementsPerScale = 128;

void check_count(int64_t count, const char* what) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (count >= 0 && count <= kMost) return;
  fail(ErrorKind::kUsage, "problem",
       {.what = std::string(what) + " out of range",
        .got = std::to_string(count),
        .wanted = fmt::format("0 to {}", kMost),
        .hint = "fewer tokens"});
}

// Distributes `visits` visits with `rows` rows in total over the two counts next to the mean.
void fill_visits(int64_t visits, int64_t rows, int64_t* by_count, int top_k) {
  if (visits == 0) return;
  const int64_t low = std::clamp<int64_t>(rows / visits, 1, top_k);
  const int64_t more = low < top_k ? std::clamp<int64_t>(rows - low * visits, 0, visits) : 0;
  by_count[low] += visits - more;
  if (more > 0) by_count[low + 1] += more;
}

void check_routing(const MoeProblem& problem) {
  const moe::RoutingSummary& routing = problem.routing;
  const auto ranks = static_cast<size_t>(problem.placement.num_ranks);
  for (size_t e = 0; e < problem.load.size(); ++e) {
    EPS_CHECK(routing.local_load[e] >= 0 && routing.local_load[e] <= problem.load[e],
              "expert {} has {} rows, {} of them local", e, problem.load[e], routing.local_load[e]);
  }
  for (size_t i = 0; i < ranks * ranks; ++i) {
    const int64_t tokens = problem.tokens_per_rank[i / ranks];
    // Without deduplication, a token is sent at most once per expert.
    const int64_t most = tokens * std::max(1, problem.shape.top_k);
    EPS_CHECK(routing.tokens_between[i] >= 0 && routing.tokens_between[i] <= most,
              "rank {} sends {} rows of its {} tokens to one rank", i / ranks, routing.tokens_between[i], tokens);
    EPS_CHECK(routing.partials_between[i] >= 0 && routing.partials_between[i] <= most,
              "{} partial sums return for {} tokens", routing.partials_between[i], tokens);
  }
  for (const int64_t count : routing.visits) EPS_CHECK(count >= 0, "{} visits", count);
}

}  // namespace

std::string_view to_string(Strategy strategy) {
  switch (strategy) {
    case Strategy::kDpEp: return "dp+ep";
    case Strategy::kTpEp: return "tp+ep";
    case Strategy::kTpTp: return "tp+tp";
  }
  return "?";
}

Strategy parse_strategy(std::string_view text) {
  for (const Strategy s : {Strategy::kDpEp, Strategy::kTpEp, Strategy::kTpTp}) {
    if (text == to_string(s)) return s;
  }
  fail(ErrorKind::kUsage, "strategy",
       {.what = "unknown strategy", .got = std::string(text), .wanted = "dp+ep, tp+ep or tp+tp", .hint = ""});
}

int64_t wire_row_bytes(DType dtype, int64_t hidden) {
  const auto bytes = static_cast<int64_t>(size_of(dtype)) * hidden;
  if (dtype != DType::kF8E4M3) return bytes;
  return bytes + 4 * ((hidden + kElementsPerScale - 1) / kElementsPerScale);
}

MoeProblem make_problem(const MoeShape& shape, const moe::ExpertPlacement& placement,
                        std::span<const moe::Routing> routing) {
  std::vector<int64_t> tokens_per_rank;
  for (const moe::Routing& r : routing) tokens_per_rank.push_back(r.num_tokens);
  return make_problem(shape, placement, moe::count_rows(routing, placement.num_experts),
                      moe::summarize_routing(routing, placement), tokens_per_rank, {shape.act_dtype, DType::kF32});
}

MoeProblem make_problem(const MoeShape& shape, const moe::ExpertPlacement& placement, std::vector<int64_t> load,
                        moe::RoutingSummary routing, std::span<const int64_t> tokens_per_rank, const Wire& wire) {
  MoeProblem problem;
  problem.shape = shape;
  problem.placement = placement;
  problem.load = std::move(load);
  problem.tokens_per_rank.assign(tokens_per_rank.begin(), tokens_per_rank.end());
  problem.routing = std::move(routing);
  problem.wire = wire;
  return problem;
}

MoeProblem make_split_problem(const MoeShape& shape, int num_experts, std::span<const moe::Routing> routing) {
  const size_t ranks = routing.size();
  MoeProblem problem;
  problem.shape = shape;
  problem.strategy = Strategy::kTpTp;
  problem.placement = {num_experts, static_cast<int>(ranks)};
  problem.load = moe::count_rows(routing, num_experts);
  for (const moe::Routing& r : routing) problem.tokens_per_rank.push_back(r.num_tokens);
  problem.routing.tokens_between.assign(ranks * ranks, 0);
  problem.routing.partials_between.assign(ranks * ranks, 0);
  problem.routing.visits.assign(ranks * (static_cast<size_t>(shape.top_k) + 1), 0);
  problem.routing.local_load = problem.load;
  problem.wire = {shape.act_dtype, DType::kF32};
  return problem;
}

void spread_evenly(MoeProblem& problem, int64_t rows) {
  const auto experts = std::ssize(problem.load);
  for (int64_t e = 0; e < experts; ++e) {
    problem.load[static_cast<size_t>(e)] = rows * (e + 1) / experts - rows * e / experts;
  }
  const auto num_ranks = problem.tokens_per_rank.size();
  const auto ranks = static_cast<int64_t>(num_ranks);
  for (size_t home = 0; home < num_ranks; ++home) {
    const int64_t tokens = problem.tokens_per_rank[home];
    const int64_t copies = std::min(tokens * ranks, tokens * problem.shape.top_k);
    for (size_t r = 0; r < num_ranks; ++r) {
      const auto d = static_cast<int64_t>(r);
      // Rotated by the home rank. Otherwise, with one token per rank, all tokens would go to the same rank.
      const size_t to = (r + home) % num_ranks;
      problem.routing.tokens_between[home * num_ranks + to] = copies * (d + 1) / ranks - copies * d / ranks;
    }
  }
}

void estimate_routing(MoeProblem& problem) {
  const auto num_ranks = problem.tokens_per_rank.size();
  const auto ranks = static_cast<int64_t>(num_ranks);
  moe::RoutingSummary& routing = problem.routing;
  routing.partials_between = routing.tokens_between;
  for (size_t r = 0; r < num_ranks; ++r) routing.partials_between[r * num_ranks + r] = 0;
  for (size_t e = 0; e < problem.load.size(); ++e) routing.local_load[e] = problem.load[e] / ranks;
  std::fill(routing.visits.begin(), routing.visits.end(), 0);
  const size_t width = routing.visits.size() / num_ranks;
  for (size_t r = 0; r < num_ranks; ++r) {
    int64_t visits = 0;
    for (size_t home = 0; home < num_ranks; ++home) {
      if (home != r) visits += routing.tokens_between[home * num_ranks + r];
    }
    int64_t rows = 0;
    const auto first = static_cast<size_t>(problem.placement.first_expert(static_cast<int>(r)));
    for (size_t e = first; e < first + static_cast<size_t>(problem.placement.experts_per_rank()); ++e) {
      rows += problem.load[e] - routing.local_load[e];
    }
    if (width > 1) fill_visits(visits, rows, &routing.visits[r * width], static_cast<int>(width) - 1);
  }
}

MoeProblem make_even_problem(const MoeShape& shape, const moe::ExpertPlacement& placement, int64_t tokens_per_rank,
                             const Wire& wire) {
  const auto num_ranks = static_cast<size_t>(placement.num_ranks);
  const auto num_experts = static_cast<size_t>(placement.num_experts);
  const std::vector<int64_t> tokens(num_ranks, tokens_per_rank);
  moe::RoutingSummary routing;
  routing.tokens_between.resize(num_ranks * num_ranks);
  routing.visits.resize(num_ranks * static_cast<size_t>(shape.top_k + 1));
  routing.local_load.resize(num_experts);
  MoeProblem problem =
      make_problem(shape, placement, std::vector<int64_t>(num_experts), std::move(routing), tokens, wire);
  spread_evenly(problem, static_cast<int64_t>(num_ranks) * tokens_per_rank * shape.top_k);
  estimate_routing(problem);
  return problem;
}

MoeProblem make_local_problem(const MoeShape& shape, std::span<const int64_t> load, int64_t num_tokens) {
  MoeProblem problem;
  problem.shape = shape;
  problem.placement = moe::place_experts(static_cast<int>(load.size()), 1);
  problem.load.assign(load.begin(), load.end());
  problem.tokens_per_rank = {num_tokens};
  problem.routing.tokens_between = {num_tokens};
  problem.routing.partials_between = {0};
  problem.routing.visits.assign(static_cast<size_t>(shape.top_k) + 1, 0);
  problem.routing.local_load = problem.load;
  problem.wire = {shape.act_dtype, DType::kF32};
  return problem;
}

void check_problem(const MoeProblem& problem) {
  EPS_CHECK(problem.placement.num_ranks >= 1 && problem.placement.num_experts >= 1);
  // The number of ranks must divide the number of experts only if ranks hold whole experts.
  EPS_CHECK(problem.strategy == Strategy::kTpTp || problem.placement.num_experts % problem.placement.num_ranks == 0,
            "{} experts over {} ranks", problem.placement.num_experts, problem.placement.num_ranks);
  if (problem.placement.experts_per_rank() > kMaxExpertsPerRank) {
    fail(ErrorKind::kUsage, "problem",
         {.what = "too many experts on a rank",
          .got = std::to_string(problem.placement.experts_per_rank()),
          .wanted = fmt::format("at most {}", kMaxExpertsPerRank),
          .hint = "more ranks"});
  }
  const auto ranks = static_cast<size_t>(problem.placement.num_ranks);
  const auto experts = static_cast<size_t>(problem.placement.num_experts);
  EPS_CHECK_EQ(problem.load.size(), experts);
  EPS_CHECK_EQ(problem.tokens_per_rank.size(), ranks);
  EPS_CHECK_EQ(problem.routing.tokens_between.size(), ranks * ranks);
  EPS_CHECK_EQ(problem.routing.partials_between.size(), ranks * ranks);
  EPS_CHECK_EQ(problem.routing.local_load.size(), experts);
  EPS_CHECK_EQ(problem.routing.visits.size() % ranks, size_t{0});
  for (const int64_t rows : problem.load) check_count(rows, "rows of an expert");
  for (const int64_t tokens : problem.tokens_per_rank) check_count(tokens, "tokens of a rank");
  check_count(std::accumulate(problem.tokens_per_rank.begin(), problem.tokens_per_rank.end(), int64_t{0}),
              "tokens of all ranks");
  check_routing(problem);
  for (int rank = 0; rank < problem.placement.num_ranks; ++rank) {
    int64_t rows = 0;
    const auto first = static_cast<size_t>(problem.placement.first_expert(rank));
    for (size_t e = first; e < first + static_cast<size_t>(problem.placement.experts_per_rank()); ++e) {
      rows += problem.load[e];
    }
    check_count(rows, "rows of a rank");
  }
}

PipelineOption parse_pipeline_option(std::string_view text) {
  if (text == "off") return {PipelineOption::Mode::kOff, 1};
  if (text == "auto") return {PipelineOption::Mode::kAuto, 1};
  if (text == "all") return {PipelineOption::Mode::kAll, 1};
  if (text == "microbatch") return {PipelineOption::Mode::kMicrobatch, 1};
  int stages = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), stages);
  if (error != std::errc() || end != text.data() + text.size() || stages < 1) {
    fail(ErrorKind::kUsage, "eps_pipeline",
         {.what = "not a pipeline setting",
          .got = std::string(text),
          .wanted = "auto, off, all, microbatch or a number of stages from 1",
          .hint = ""});
  }
  return {PipelineOption::Mode::kFixed, stages};
}

std::string to_string(const PipelineOption& option) {
  switch (option.mode) {
    case PipelineOption::Mode::kOff: return "off";
    case PipelineOption::Mode::kAuto: return "auto";
    case PipelineOption::Mode::kAll: return "all";
    case PipelineOption::Mode::kMicrobatch: return "microbatch";
    case PipelineOption::Mode::kFixed: return std::to_string(option.num_stages);
  }
  return "?";
}

}  // namespace eps::plan
