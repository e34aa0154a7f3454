#include "layer_case.h"

#include <fmt/format.h>

#include <algorithm>

#include "plan/virtual_clock.h"
#include "sim/workload.h"

namespace eps::paper {
namespace {

int64_t tokens_per_rank(const Reading& reading, const LayerSizes& sizes, int64_t m) {
  switch (reading.m) {
    case Reading::M::kTokensPerRank: return m;
    case Reading::M::kTokens: return std::max<int64_t>(1, m / sizes.num_ranks);
    case Reading::M::kRowsPerExpert: return std::max<int64_t>(1, m * sizes.experts_per_rank / reading.top_k);
  }
  return m;
}

}  // namespace

std::string to_string(const Reading& reading) {
  std::string m = "tokens per GPU";
  if (reading.m == Reading::M::kTokens) m = "tokens of the layer";
  if (reading.m == Reading::M::kRowsPerExpert) m = "rows per expert";
  return fmt::format("m {}, top-{}, a token sent once {}", m, reading.top_k,
                     reading.once_per_rank ? "a GPU" : "an expert");
}

plan::MoeProblem layer_problem(const Reading& reading, const LayerSizes& sizes, int64_t m, bool fp8_wire) {
  const int num_experts = sizes.num_ranks * sizes.experts_per_rank;
  const int64_t tokens = tokens_per_rank(reading, sizes, m);
  const std::vector<moe::Routing> routing = sim::random_routing(
      {.num_ranks = sizes.num_ranks, .tokens_per_rank = tokens, .num_experts = num_experts, .top_k = reading.top_k});
  const moe::ExpertPlacement placement = moe::place_experts(num_experts, sizes.num_ranks);
  plan::MoeShape shape;
  shape.hidden = sizes.hidden;
  shape.inner = sizes.inner;
  shape.top_k = reading.top_k;
  shape.weight_dtype = DType::kF8E4M3;
  plan::MoeProblem problem = plan::make_problem(shape, placement, routing);
  if (!reading.once_per_rank) send_once_an_expert(problem);
  const DType wire = fp8_wire ? DType::kF8E4M3 : DType::kBF16;
  problem.wire = {wire, wire};
  return problem;
}

void send_once_an_expert(plan::MoeProblem& problem) {
  const auto ranks = static_cast<size_t>(problem.placement.num_ranks);
  const auto each = static_cast<size_t>(problem.placement.experts_per_rank());
  moe::RoutingSummary& routing = problem.routing;
  const size_t width = routing.visits.size() / ranks;
  std::ranges::fill(routing.visits, 0);
  for (size_t r = 0; r < ranks; ++r) {
    int64_t rows = 0;
    for (size_t e = r * each; e < (r + 1) * each; ++e) rows += problem.load[e] - routing.local_load[e];
    for (size_t home = 0; home < ranks; ++home) {
      if (home != r) routing.tokens_between[home * ranks + r] = rows / static_cast<int64_t>(ranks - 1);
    }
    routing.visits[r * width + 1] = rows;
  }
}

plan::PlanLimits paper_limits(const LayerSetting& setting) {
  plan::PlanLimits limits;
  limits.local_first = false;
  limits.gemm_sms = {setting.gemm_sms};
  limits.kernel = setting.kernel;
  return limits;
}

plan::PipelineOption paper_pipeline(int num_stages) {
  if (num_stages == 1) return {plan::PipelineOption::Mode::kOff, 1};
  return {plan::PipelineOption::Mode::kFixed, num_stages};
}

double layer_us(const plan::HardwareProfile& profile, const plan::MoeProblem& problem, const LayerSetting& setting) {
  const plan::Planner planner(profile, problem.shape, paper_limits(setting));
  return plan::end_of(planner.simulate(planner.plan(problem, paper_pipeline(setting.num_stages)), problem));
}

}  // namespace eps::paper
