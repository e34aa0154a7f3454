#include "sim/comparison.h"

#include <optional>

#include "base/error.h"

namespace eps::sim {
namespace {

std::vector<plan::Policy> policies_of(plan::Strategy strategy, int num_ranks) {
  if (strategy == plan::Strategy::kTpTp) return {plan::Policy::kTp};
  if (num_ranks == 1) return {plan::Policy::kSerial};  // there is no communication to overlap
  return {plan::Policy::kSerial, plan::Policy::kMicrobatch, plan::Policy::kEps};
}

plan::PipelineOption option_of(plan::Policy policy) {
  switch (policy) {
    case plan::Policy::kSerial:
    case plan::Policy::kTp: return {plan::PipelineOption::Mode::kOff, 1};
    case plan::Policy::kMicrobatch: return {plan::PipelineOption::Mode::kMicrobatch, 1};
    case plan::Policy::kEps: return {plan::PipelineOption::Mode::kAuto, 1};
  }
  return {};
}

}  // namespace

std::vector<PrefillRow> compare_prefill(const SimulatedModel& model, const plan::HardwareProfile& profile,
                                        PrefillOptions options, std::span<const plan::Strategy> strategies) {
  std::vector<PrefillRow> rows;
  std::optional<Error> first_error;
  bool any_runs = false;
  options.limits.microbatch = false;       // microbatch has its own row
  std::vector<plan::MoeProblem> problems;  // shared by all policies of a strategy
  for (const plan::Strategy strategy : strategies) {
    // With expert parallelism the loads are the same whether attention is split by heads or by sequences, and sampling
    // them is most of the work, so it is done once. Splitting by sequences has no further requirements on the sizes.
    const bool same_loads = options.strategy == plan::Strategy::kTpEp && strategy == plan::Strategy::kDpEp;
    if (!same_loads) problems.clear();
    for (plan::MoeProblem& problem : problems) problem.strategy = strategy;
    options.strategy = strategy;
    for (const plan::Policy policy : policies_of(strategy, options.num_ranks)) {
      PrefillRow row{strategy, policy, "", {}};
      options.pipeline = option_of(policy);
      try {
        if (problems.empty()) problems = prefill_problems(model, options);
        row.result = simulate_prefill(model, profile, options, problems);
        any_runs = true;
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kUsage) throw;
        if (!first_error) first_error = error;
        row.why_not = fmt::format("`{}`: {}", error.where(), error.message());  // the field as in other messages
      }
      rows.push_back(std::move(row));
    }
  }
  if (!any_runs && first_error) throw *first_error;
  return rows;
}

}  // namespace eps::sim
