// Problem + profile -> plan. Pure: same input, same plan; no device, no clock, no randomness.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "plan/plan.h"
#include "plan/profile.h"

namespace eps {

// What the planner may choose from.
struct PlanLimits {
  // Policies `auto` may take besides serial and eps. Engines list what they can run.
  bool microbatch = true;
  bool tp = false;
  bool local_first = true;
  // Estimate every candidate, also those that a bound rules out: for people who ask why. Takes longer, the choice is
  // the same.
  bool explain = false;
  std::vector<int> comm_sms = {};  // allowed; empty: every point of the profile's links
  // GEMM budgets to try under every link, all SMs included; empty: what the link leaves, and all. Serial plans run
  // nothing beside a message and take all.
  std::vector<int> gemm_sms = {};
  std::optional<GemmKind> kernel = {};  // of all experts; empty: the better one for each stage
};

// Plans layers of one shape for one profile; making one turns the profile's curves into tables, planning then takes
// microseconds.
//
//   off         policy `serial`: one stage, one op after the other
//   N           policy `eps` with N stages by expert; all = one expert per rank and stage
//   microbatch  policy `microbatch`
//   auto        the smallest predicted makespan; between equals, fewer stages. One rank has nothing to hide: one stage
//
// Stages balance every rank's rows: each rank assigns its experts, heaviest first, to the stage with the fewest rows;
// small stages come first and last, where nothing hides their messages.
//
// Errors  kUsage when the profile lacks what the shape needs; from plan(): fewer experts on a rank than stages asked
//         for, a problem of another shape
// Source  EPS-MoE §4.3; balancing, ordering and first-need dispatch are ours
class Planner {
 public:
  Planner(HardwareProfile profile, const MoeShape& shape, PlanLimits limits = {});
  ~Planner();
  Planner(Planner&&) noexcept;
  Planner& operator=(Planner&&) noexcept;

  Plan plan(const MoeProblem& problem, const PipelineOption& option) const;

  // When every op of `plan` runs on every rank, by the same costs: the slowest rank of one op need not be that of the
  // next, so this mostly ends before makespan_us.
  //
  // Shapes  returns [ops, num_ranks]
  std::vector<OpTime> simulate(const Plan& plan, const MoeProblem& problem) const;

  // ε0, ε1 and N* beside a plan of ours. Not part of planning, which has no time for it.
  PaperView paper_view(const MoeProblem& problem, const Plan& plan) const;

  const HardwareProfile& profile() const;
  const MoeShape& shape() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Errors  kUsage naming --eps-pipeline: more stages than a rank has experts
void check_stages(const PipelineOption& option, const ExpertPlacement& placement);

}  // namespace eps
