#include "engine/strategy_choice.h"

#include "arch/rank_part.h"
#include "base/error.h"
#include "sim/strategy.h"

namespace eps::engine {
namespace {

// By how much a prediction may be wrong: predicted and measured times of MoE layers on a CPU differ by about 10 %.
constexpr double kDoubt = 0.1;

std::string milliseconds(double us) { return fmt::format("{:.1f} ms", us * 1e-3); }

// The reason why `strategy` cannot run with these ranks; empty if it can.
std::string why_not(const StrategyQuery& query, plan::Strategy strategy) {
  if (strategy == plan::Strategy::kTpTp && query.wants_stages) return "it has no stages";
  try {
    arch::check_split(*query.spec, strategy, query.num_ranks, "the model");
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

ChosenStrategy predict(const StrategyQuery& query) {
  const sim::SimulatedModel model{"the model", *query.spec, query.weight_dtype, query.act_dtype};
  sim::PrefillOptions options;
  options.num_ranks = query.num_ranks;
  options.batch = {query.num_ranks, std::max<int64_t>(1, query.step_tokens / query.num_ranks)};
  options.wire = {query.act_dtype, DType::kF32};
  const sim::StrategyChoice choice = sim::choose_strategy(model, *query.profile, options);
  const sim::StrategyCandidate* best = nullptr;
  double dp_us = 0;
  std::string times;
  for (const sim::StrategyCandidate& c : choice.candidates) {
    std::string text;
    // Whether the weights fit is not a matter of the strategy here: the ranks share the memory of the host.
    if (c.verdict == plan::Verdict::kCannotRun) {
      text = "cannot run: " + c.why_not;
    } else if (const std::string reason = why_not(query, c.strategy); !reason.empty()) {
      text = "cannot run: " + reason;
    } else {
      text = milliseconds(c.result.ttft_us);
      if (c.strategy == plan::Strategy::kDpEp) dp_us = c.result.ttft_us;
      if (best == nullptr || c.result.ttft_us < best->result.ttft_us) best = &c;
    }
    times += fmt::format("{}{} {}", times.empty() ? "" : ", ", plan::to_string(c.strategy), text);
  }
  ChosenStrategy out;
  if (best != nullptr && (dp_us == 0 || best->result.ttft_us < (1 - kDoubt) * dp_us)) out.strategy = best->strategy;
  out.reason = fmt::format(
      "strategy {}: a prefill of {} x {} tokens is predicted to take: {}; another than dp+ep has to "
      "save {:.0f} %",
      plan::to_string(out.strategy), options.batch.batch, options.batch.sequence_length, times, 100 * kDoubt);
  return out;
}

}  // namespace

plan::Strategy parse_requested_strategy(const std::string& requested, int num_ranks, bool on_host) {
  for (const plan::Strategy s : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
    if (requested != plan::to_string(s)) continue;
    if (num_ranks == 1) return plan::Strategy::kDpEp;  // a single rank has everything, whatever it is called
    if (s != plan::Strategy::kDpEp && !on_host) {
      fail(ErrorKind::kUsage, "strategy",
           {.what = "ranks on GPUs cannot split attention or experts yet",
            .got = requested,
            .wanted = "dp+ep",
            .hint = "`device` cpu"});
    }
    return s;
  }
  fail(ErrorKind::kUsage, "strategy",
       {.what = "unknown strategy", .got = requested, .wanted = "auto, dp+ep, tp+ep or tp+tp", .hint = ""});
}

ChosenStrategy choose_strategy(const StrategyQuery& query) {
  if (query.requested != "auto") {
    return {parse_requested_strategy(query.requested, query.num_ranks, query.on_host), ""};
  }
  const auto dp_ep = [](const std::string& why) {
    return ChosenStrategy{plan::Strategy::kDpEp, "strategy dp+ep: " + why};
  };
  if (query.num_ranks == 1) return dp_ep("there is one rank");
  if (!query.on_host) return dp_ep("ranks on GPUs cannot split attention or experts yet");
  if (query.spec->first_moe_layer() < 0) return dp_ep("a model without experts cannot be predicted");
  try {
    return predict(query);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) throw;
    return dp_ep("nothing can be predicted: " + error.message());
  }
}

}  // namespace eps::engine
