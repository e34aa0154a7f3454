#include "sim/strategy.h"

#include <optional>

#include "base/error.h"

namespace eps::sim {
namespace {

std::string describe(const StrategyChoice& choice, const plan::HardwareProfile& profile) {
  const std::string paper = fmt::format("the paper's rule chooses {}", plan::to_string(choice.paper));
  if (choice.chosen < 0) return fmt::format("no strategy that can run fits in {:g} GB; {}", profile.memory_gb, paper);
  const StrategyCandidate& best = choice.candidates[static_cast<size_t>(choice.chosen)];
  std::string out = fmt::format("{}: {:.1f} ms", plan::to_string(best.strategy), best.result.ttft_us * 1e-3);
  for (const StrategyCandidate& c : choice.candidates) {
    if (c.verdict == plan::Verdict::kSlower) {
      out += fmt::format(", {} {:.1f} ms", plan::to_string(c.strategy), c.result.ttft_us * 1e-3);
    } else if (c.verdict == plan::Verdict::kTooBig) {
      out += fmt::format(", {} needs {:.0f} GB of {:g}", plan::to_string(c.strategy), c.result.memory_gb,
                         profile.memory_gb);
    } else if (c.verdict == plan::Verdict::kCannotRun) {
      out += fmt::format(", {} cannot run", plan::to_string(c.strategy));
    }
  }
  return out + "; " + paper;
}

}  // namespace

plan::Strategy paper_strategy(const arch::AttentionSpec& attention) {
  return attention.latent() ? plan::Strategy::kDpEp : plan::Strategy::kTpEp;
}

StrategyChoice choose_strategy(const SimulatedModel& model, const plan::HardwareProfile& profile,
                               PrefillOptions options) {
  StrategyChoice choice;
  choice.paper = paper_strategy(model.spec.attention);
  std::optional<Error> first_error;
  const plan::PipelineOption requested = options.pipeline;
  for (const plan::Strategy strategy : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
    StrategyCandidate candidate;
    candidate.strategy = options.strategy = strategy;
    // Without expert parallelism there is nothing to split into stages.
    options.pipeline =
        strategy == plan::Strategy::kTpTp ? plan::PipelineOption{plan::PipelineOption::Mode::kOff, 1} : requested;
    try {
      candidate.result = simulate_prefill(model, profile, options);
      candidate.verdict = candidate.result.fits ? plan::Verdict::kSlower : plan::Verdict::kTooBig;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUsage) throw;
      if (!first_error) first_error = error;
      candidate.verdict = plan::Verdict::kCannotRun;
      candidate.why_not = fmt::format("`{}`: {}", error.where(), error.message());  // the field as in other messages
    }
    choice.candidates.push_back(std::move(candidate));
  }
  bool any_runs = false;
  for (size_t i = 0; i < choice.candidates.size(); ++i) {
    const StrategyCandidate& c = choice.candidates[i];
    any_runs |= c.verdict != plan::Verdict::kCannotRun;
    if (c.verdict != plan::Verdict::kSlower) continue;
    if (choice.chosen < 0 || c.result.ttft_us < choice.candidates[static_cast<size_t>(choice.chosen)].result.ttft_us) {
      choice.chosen = static_cast<int>(i);
    }
  }
  if (!any_runs) throw *first_error;
  if (choice.chosen >= 0) choice.candidates[static_cast<size_t>(choice.chosen)].verdict = plan::Verdict::kChosen;
  choice.reason = describe(choice, profile);
  return choice;
}

double volume_dp_ep(double bytes, int num_ranks, double ranks_per_token) {
  const double ranks = num_ranks;
  return ranks_per_token * bytes / (ranks * ranks) * (ranks - 1);
}

double volume_tp_ep(double bytes, int num_ranks, double ranks_per_token) {
  return bytes / num_ranks * (num_ranks - 1) + volume_dp_ep(bytes, num_ranks, ranks_per_token);
}

double volume_tp_tp(double bytes, int num_ranks) { return 2 * bytes / num_ranks * (num_ranks - 1); }

}  // namespace eps::sim
