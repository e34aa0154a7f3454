// The same prefill in every strategy and policy, side by side.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "sim/prefill.h"

namespace eps {

struct PrefillRow {
  Strategy strategy = Strategy::kDpEp;
  Policy policy = Policy::kSerial;  // that was asked for: eps takes as many stages as suit it
  std::string why_not;              // not empty: it cannot run, and there is no result
  PrefillResult result;
  bool operator==(const PrefillRow&) const = default;
};

// For each strategy in turn its policies: tp for tp+tp, else serial, microbatch and eps. options.strategy, pipeline and
// limits are not looked at.
//
// Errors  kUsage: that of the first row where no row can run
std::vector<PrefillRow> compare_prefill(const ModelShape& shape, const HardwareProfile& profile, PrefillOptions options,
                                        std::span<const Strategy> strategies);

}  // namespace eps
