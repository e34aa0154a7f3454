// Problems and plans as JSON, for storing, comparing and use in other programs. Reading what was written gives an equal
// value, to the last bit of every number.
//
// A plan is one object:
//   version         Plan::kVersion
//   policy, strategy, reason, makespan_us, bound_us, bytes_dispatch, bytes_combine: as in Plan
//   num_stages      stages by expert, Plan::num_expert_stages(); stages[] is longer if tokens are split as well: a
//   first
//                   stage of local rows, or halves
//   overlap         {communication_us, hidden_us}; follows from ops[]
//   wire            {dispatch, combine}
//   transport       "messages", as if it is absent, or "flags"
//   sms             {comm, gemm}
//   paper           {eps0, eps1, overhead_us, best_stages}
//   stages[]        {experts[], part, rows[] by rank, gate_up_kernel, down_kernel}; a kernel is "dense" or "grouped"
//                   if all ranks use the same one, else a list by rank
//   ops[]           {kind, lane, stage, deps[], share, begin_us, end_us}; share: [begin, end] of the tokens, absent
//                   for all of them; the times are absent in a plan without predictions
//   candidates[]    as in Candidate, and a reason, which follows from the rest
//   about           what the plan is for: any object, for information only; not read back
#pragma once

#include <string>
#include <string_view>

#include "plan/plan.h"
#include "report/json_words.h"

namespace eps::report {

// One line each, without a line end.  Errors  kInternal if a number is not finite
std::string to_json(const plan::MoeProblem& problem);
std::string to_json(const plan::Plan& plan, const OrderedJson& about = {});

// Errors  kInput, naming `where`, the key, its value and what was expected; unknown keys; another version
plan::MoeProblem parse_problem(std::string_view json, const std::string& where);
plan::Plan parse_plan(std::string_view json, const std::string& where);

}  // namespace eps::report
