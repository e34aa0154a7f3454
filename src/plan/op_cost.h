// The time that an op of a plan takes on one rank: the functions in the table of ops. Internal to planning and
// simulation.
#pragma once

#include "plan/layer_cost.h"
#include "plan/op_table.h"
#include "plan/rank_stage.h"
#include "plan/traffic.h"

namespace eps::plan {

// The inputs that all ops of one plan or candidate share.
struct OpTerms {
  const LayerCost* cost = nullptr;
  SmFactors factors;
  LinkPoint link;
  Wire wire;
  double copies = 1;  // experts that a token has on average on a rank that it is sent to
  int num_ranks = 1;
  int64_t all_tokens = 0;  // over all ranks
  int ring_passes = 0;    // for each of kEnter and kLeave: 1 for a reduce-scatter or an all-gather, 2 for an all-reduce
  double handoff_us = 0;  // 0 if one thread or stream runs everything in order
};

// The work of one op on one rank.
struct OpLoad {
  RankStage stage;  // rows of the stage's experts
  moe::GemmKind gate_up_kernel = moe::GemmKind::kDense;
  moe::GemmKind down_kernel = moe::GemmKind::kDense;
  MessageRows dispatch, combine;  // the stage's messages
  int64_t tokens = 0;             // ops of the whole layer: the tokens that they process
  bool awaits_rows = true;        // false for a stage of local rows, which need no message
};

// Returns the op's time, including its hand-over. A message without rows is not sent and takes no time.
inline double op_us(const OpRow& row, const OpTerms& terms, const OpLoad& load) {
  const double us = row.us(terms, load);
  const bool sent = us > 0 || !lane_row(row.lane).moves_rows;
  return row.awaits_lane && load.awaits_rows && sent ? us + terms.handoff_us : us;
}
inline double op_us(OpKind kind, const OpTerms& terms, const OpLoad& load) { return op_us(op_row(kind), terms, load); }

// Returns the rates of the op and of messages while both run.
ClockRates op_rates(const OpRow& row, const OpTerms& terms, const OpLoad& load);

}  // namespace eps::plan
