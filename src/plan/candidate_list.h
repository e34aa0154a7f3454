// Selects and names the candidates of a plan for reports.
#pragma once

#include <string>
#include <vector>

#include "plan/plan.h"

namespace eps::plan {

// Returns one candidate of each policy, strategy and number of stages: the fastest variant (wires, SMs, orders) that
// can run. The chosen candidate comes first, then the others by makespan, and those that cannot be used last.
std::vector<Candidate> best_variants(const std::vector<Candidate>& candidates);

// Returns at most `limit` of those, but always the fastest of each policy and strategy, because comparisons between
// these are the most useful ones.
std::vector<Candidate> notable_candidates(const std::vector<Candidate>& candidates, size_t limit);

// Returns all candidates in that order.
std::vector<Candidate> sorted_candidates(std::vector<Candidate> candidates);

// The candidate that became the plan, or null.
const Candidate* find_chosen(const std::vector<Candidate>& candidates);

// "eps, 4 stages", "microbatch", "tp".
std::string short_name(const Candidate& candidate);

// "bf16", or "fp8/bf16" where dispatch and combine differ.
std::string wire_text(const Wire& wire);

// "dense", "grouped" or "both": the kernels that the slowest rank uses in any stage.
std::string kernels_text(const Candidate& candidate);

// "20 comm + 112 gemm", or "-" without an SM budget.
std::string sms_text(const SmBudget& sms);

}  // namespace eps::plan
