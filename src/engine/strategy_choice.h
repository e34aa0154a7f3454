// Chooses how attention and experts are distributed over the ranks of an engine.
#pragma once

#include <string>

#include "arch/model_spec.h"
#include "plan/problem.h"
#include "plan/profile.h"

namespace eps::engine {

struct StrategyQuery {
  std::string requested = "dp+ep";  // or "auto", "tp+ep", "tp+tp"
  const arch::ModelSpec* spec = nullptr;
  const plan::HardwareProfile* profile = nullptr;
  int num_ranks = 1;
  bool on_host = true;         // whether the ranks exchange rows in host memory
  bool wants_stages = false;   // a number of stages, or halves of the tokens, was requested
  int64_t step_tokens = 2048;  // of a prefill step
  DType weight_dtype = DType::kBF16;
  DType act_dtype = DType::kBF16;
};

struct ChosenStrategy {
  plan::Strategy strategy = plan::Strategy::kDpEp;
  std::string reason;  // one line; empty: it was requested
};

// Errors  kUsage naming `strategy`: unknown, or not "auto"
plan::Strategy parse_requested_strategy(const std::string& requested, int num_ranks, bool on_host);

// `auto`: the strategy whose prefill is predicted to be the fastest, as `epsmoe plan --strategy auto` does: one
// sequence on each rank, together the tokens of a prefill step. Another one than dp+ep has to be faster by more than
// the predictions' error; dp+ep is also chosen if nothing can be predicted. One rank: dp+ep, whatever is requested.
//
// The same query gives the same answer.
//
// Errors  kUsage naming `strategy`: unknown, or not supported by the ranks
ChosenStrategy choose_strategy(const StrategyQuery& query);

}  // namespace eps::engine
