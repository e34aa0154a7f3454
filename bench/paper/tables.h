// The paper's tables from our simulator, one function each.
#pragma once

#include "layer_case.h"
#include "plan/profile.h"
#include "report.h"
#include "tensor/dtype.h"

namespace eps::paper {

struct TableOptions {
  plan::HardwareProfile profile;
  Reading reading;  // the one that the profile was fitted under
  // What tables 2 to 4 leave open.
  DType weights = DType::kF8E4M3;
  int64_t t2_batch = 32;
  bool shared_overlap = false;  // whether our plans may run shared experts under messages
  // Of the reduce-scatters and all-gathers of tensor parallelism; gbps 0: as the all-to-all's. An absolute rate beside
  // a profile that only holds up to a scale (docs/paper.md): for comparison.
  plan::LinkPoint ring = {};
  bool fused_base = true;  // tables 3 and 4: whether the baseline's kernel gathers rows itself
};

Section volumes(const TableOptions& options);         // table 1
Section deepseek_gains(const TableOptions& options);  // table 2
Section mixtral_ttft(const TableOptions& options);    // table 3
Section dbrx_ttft(const TableOptions& options);       // table 3
Section arctic_ttft(const TableOptions& options);     // table 4
// Table 5, as ratios to one of its rows: 0 as in the paper, or another where row 0 itself is off.
Section layer_times(const TableOptions& options, int base_row);
Section sm_budgets(const TableOptions& options);      // table 6
Section pipeline_gains(const TableOptions& options);  // table 7

// The profile as a baseline sees it whose fused kernel reads tokens in place and adds a token's rows in one pass, as
// vLLM's does: no gather, top_k + 1 rows moved a token instead of our 3 · top_k, no pass of its own to finish.
plan::HardwareProfile with_fused_rows(plan::HardwareProfile profile, int top_k);

}  // namespace eps::paper
