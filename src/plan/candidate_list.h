// Selects and names the candidates of a plan that reports show.
#pragma once

#include <string>
#include <vector>

#include "plan/plan.h"

namespace eps {

// One candidate of each policy, strategy and number of stages: the fastest of its variants (wires, SMs, orders) that
// can run. The chosen one comes first, then the others by makespan, and those that were ruled out last.
std::vector<Candidate> best_variants(const std::vector<Candidate>& candidates);

// At most `limit` of those, or more where there are more policies and strategies: the fastest of each is always
// included, because comparisons between them are the most useful ones.
std::vector<Candidate> notable_candidates(const std::vector<Candidate>& candidates, size_t limit);

// All candidates in that order.
std::vector<Candidate> sorted_candidates(std::vector<Candidate> candidates);

// The candidate that became the plan, or null.
const Candidate* find_chosen(const std::vector<Candidate>& candidates);

// "eps, 4 stages", "microbatch", "tp".
std::string short_name(const Candidate& candidate);

// "bf16", or "fp8/bf16" where dispatch and combine differ.
std::string wire_text(const Wire& wire);

// "dense", "grouped" or "both": the kernels of the slowest ranks' stages.
std::string kernels_text(const Candidate& candidate);

// "20 comm + 112 gemm", "-" where nothing is limited.
std::string sms_text(const SmBudget& sms);

}  // namespace eps
