// Which of a plan's candidates people want to see, and what to call them.
#pragma once

#include <string>
#include <vector>

#include "plan/plan.h"

namespace eps {

// One candidate of each policy, strategy and number of stages, the fastest of those that can run (of its wires, SMs and
// orders); the chosen one first, then by makespan; those that were ruled out last.
std::vector<Candidate> best_variants(const std::vector<Candidate>& candidates);

// At most `limit` of those, or more where there are more policies and strategies: the fastest of each is always among
// them, because it is what people compare with.
std::vector<Candidate> notable_candidates(const std::vector<Candidate>& candidates, size_t limit);

// All of them in that order.
std::vector<Candidate> sorted_candidates(std::vector<Candidate> candidates);

// The candidate that became the plan, or null.
const Candidate* find_chosen(const std::vector<Candidate>& candidates);

// "eps, 4 stages", "microbatch", "tp".
std::string short_name(const Candidate& candidate);

// "bf16", or "fp8/bf16" where dispatch and combine differ.
std::string wire_text(const Wire& wire);

// "dense", "grouped" or "both": what the slowest ranks' stages run.
std::string kernels_text(const Candidate& candidate);

// "20 comm + 112 gemm", "-" where nothing is limited.
std::string sms_text(const SmBudget& sms);

}  // namespace eps
