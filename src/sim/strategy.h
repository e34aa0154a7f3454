// Chooses how to split attention and experts over the ranks: by predicted time, and by the paper's rule. Also computes
// the paper's communication volumes.
#pragma once

#include <string>
#include <vector>

#include "sim/prefill.h"

namespace eps::sim {

struct StrategyCandidate {
  plan::Strategy strategy = plan::Strategy::kDpEp;
  plan::Verdict verdict = plan::Verdict::kSlower;
  std::string why_not;   // kCannotRun: the reason; there is no result then
  PrefillResult result;  // with the best policy for its layers
  bool operator==(const StrategyCandidate&) const = default;
};

struct StrategyChoice {
  std::vector<StrategyCandidate> candidates;     // dp+ep, tp+ep, tp+tp
  int chosen = -1;                               // of candidates; -1: none runs and fits
  plan::Strategy paper = plan::Strategy::kDpEp;  // the choice of the paper's rule
  std::string reason;                            // one line, including the choice of the paper's rule
  bool operator==(const StrategyChoice&) const = default;
};

// The paper's rule. Latent attention cannot be split by heads without additional work on every rank, so it is split by
// tokens; other kinds are split by heads.
//
// Source  EPS-MoE §parallel strategy
plan::Strategy paper_strategy(const arch::AttentionSpec& attention);

// Simulates the prefill in every strategy, whatever options.strategy is, and chooses the fastest of those that fit in
// memory; between equals the first.
//
// Errors  kUsage: the error of dp+ep, if no strategy can run
StrategyChoice choose_strategy(const SimulatedModel& model, const plan::HardwareProfile& profile,
                               PrefillOptions options);

// The bytes that one rank sends before the experts run, when each token goes to `ranks_per_token` ranks, including its
// own where that is one of them; the same number is returned afterwards. `bytes`: activations of the whole batch.
// Source  EPS-MoE §parallel strategy; its bounds are ranks_per_token = 1 and min(top_k, num_ranks)
double volume_dp_ep(double bytes, int num_ranks, double ranks_per_token);
double volume_tp_ep(double bytes, int num_ranks, double ranks_per_token);
double volume_tp_tp(double bytes, int num_ranks);

}  // namespace eps::sim
