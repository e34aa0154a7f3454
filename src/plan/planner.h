// Creates a plan from a problem and a profile. A pure function: no device, no clock, no randomness.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "plan/plan.h"
#include "plan/profile.h"

namespace eps::plan {

// Restrictions of the planner's choices.
struct PlanLimits {
  // Policies that `auto` may choose in addition to serial and eps. Engines enable those that they can run.
  bool microbatch = true;
  bool tp = false;
  bool local_first = true;
  // On devices with SMs. On hosts it has not been measured.
  bool local_around = true;
  // Estimate every candidate, including those that a bound excludes, so that reports can explain the choice. This takes
  // longer and does not change the choice.
  bool explain = false;
  std::vector<int> comm_sms = {};  // allowed; empty: every point of the profile's links
  // GEMM budgets to try with every link; they may include all SMs. Empty: the SMs that the link leaves, and all SMs.
  // Serial plans always use all SMs, because no GEMM runs during a message.
  std::vector<int> gemm_sms = {};
  // Plans of tp+tp contain the layer's own collectives alone, an all-gather and a reduce-scatter; those of the
  // attention before and after it run apart from the plan. For plans that are executed.
  bool layer_only = false;
  std::optional<moe::GemmKind> kernel = {};  // for all experts; empty: the better one for each stage
};

// Plans layers of one shape for one profile. The constructor converts the profile's curves to tables, so that planning
// takes only microseconds.
//
//   off         policy `serial`: one stage, one op after the other
//   N           policy `eps` with N stages by expert; all = one expert per rank and stage
//   microbatch  policy `microbatch`
//   auto        the smallest predicted makespan; of equal ones, fewer stages. With one rank, one stage. On GPUs, the
//               serial plan unless another one is faster by more than the predictions' error
//
// On GPUs, eps may also run all local rows apart from the others: a part of the experts before the first stage, where
// they hide its dispatch, and the others after the last one, where they hide its combine. Weights are then read twice.
//
// Stages balance the rows of every rank: each rank assigns its experts, heaviest first, to the stage with the fewest
// rows. Small stages run first and last, because nothing can hide the first dispatch and the last combine.
//
// Errors  kUsage if the profile lacks something that the shape needs; from plan(), if a rank has fewer experts than the
//         requested number of stages; kInternal for a problem of another shape
// Source  EPS-MoE §4.3; balancing, ordering and first-need dispatch are ours
class Planner {
 public:
  Planner(HardwareProfile profile, const MoeShape& shape, PlanLimits limits = {});
  ~Planner();
  Planner(Planner&&) noexcept;
  Planner& operator=(Planner&&) noexcept;

  Plan plan(const MoeProblem& problem, const PipelineOption& option) const;

  // The plan of a layer that GPUs run without the host (Transport::kFlags), with up to `tokens_per_rank` tokens on each
  // rank. Times and kernels are those of an even load.
  Plan plan_without_load(const moe::ExpertPlacement& placement, int64_t tokens_per_rank, const Wire& wire) const;

  // Predicts the times of every op of `plan` on every rank, from the same costs. The result usually ends before
  // makespan_us, because different ops are slowest on different ranks.
  //
  // Shapes  returns [ops, num_ranks]
  std::vector<OpTime> simulate(const Plan& plan, const MoeProblem& problem) const;

  // The paper's ε0, ε1 and N* for comparison with a plan. Not part of plan(), which would become too slow.
  PaperView paper_view(const MoeProblem& problem, const Plan& plan) const;

  const HardwareProfile& profile() const;
  const MoeShape& shape() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Errors  kUsage naming --eps-pipeline: more stages than a rank has experts
void check_stages(const PipelineOption& option, const moe::ExpertPlacement& placement);

}  // namespace eps::plan
