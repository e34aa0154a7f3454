// Compares the same prefill in every strategy and policy.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "sim/prefill.h"

namespace eps::sim {

struct PrefillRow {
  plan::Strategy strategy = plan::Strategy::kDpEp;
  plan::Policy policy = plan::Policy::kSerial;  // the requested one; eps uses the best number of stages
  std::string why_not;                          // if not empty, the reason why it cannot run; there is no result then
  PrefillResult result;
  bool operator==(const PrefillRow&) const = default;
};

// The policies of each strategy in turn: tp for tp+tp, else serial, microbatch and eps. options.strategy, pipeline and
// limits are ignored.
//
// Errors  kUsage: the error of the first row, if no row can run
std::vector<PrefillRow> compare_prefill(const SimulatedModel& model, const plan::HardwareProfile& profile,
                                        PrefillOptions options, std::span<const plan::Strategy> strategies);

}  // namespace eps::sim
