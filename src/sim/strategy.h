// Which way to split attention and experts over the ranks: ours by predicted time, the paper's by rule, and the paper's
// communication volumes.
#pragma once

#include <string>
#include <vector>

#include "sim/prefill.h"

namespace eps {

struct StrategyCandidate {
  Strategy strategy = Strategy::kDpEp;
  Verdict verdict = Verdict::kSlower;
  std::string why_not;   // kCannotRun: the reason; there is no result then
  PrefillResult result;  // with the best policy for its layers
  bool operator==(const StrategyCandidate&) const = default;
};

struct StrategyChoice {
  std::vector<StrategyCandidate> candidates;  // dp+ep, tp+ep, tp+tp
  int chosen = -1;                            // of candidates; -1: none runs and fits
  Strategy paper = Strategy::kDpEp;           // what the paper's rule says
  std::string reason;                         // in one line, with the paper's rule
  bool operator==(const StrategyChoice&) const = default;
};

// Latent attention does not divide by heads without extra work on every rank, so its tokens are divided; other kinds
// are divided by heads.
// Source  EPS-MoE §parallel strategy
Strategy paper_strategy(const AttentionShape& attention);

// Simulates the prefill in every strategy, whatever options.strategy is. Of those that fit in memory the fastest is
// chosen; between equals the first.
//
// Errors  kUsage: that of dp+ep where no strategy can run
StrategyChoice choose_strategy(const ModelShape& shape, const HardwareProfile& profile, PrefillOptions options);

// Bytes that leave one rank before the experts run, when each token goes to `ranks_per_token` ranks, its own included
// where that is one of them; as many come back after. `bytes`: activations of the whole batch.
// Source  EPS-MoE §parallel strategy; its bounds are ranks_per_token = 1 and min(top_k, num_ranks)
double volume_dp_ep(double bytes, int num_ranks, double ranks_per_token);
double volume_tp_ep(double bytes, int num_ranks, double ranks_per_token);
double volume_tp_tp(double bytes, int num_ranks);

}  // namespace eps
