#include "plan/planner.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "base/error.h"

namespace eps {
namespace {

struct StageCount {
  int num_stages;
  bool pipelined;
  std::string reason;
};

// Below this many rows per rank and stage the hand-over between lanes (tens of microseconds on a CPU) costs more than
// the copy it hides.
constexpr int64_t kMinRowsPerStage = 64;
constexpr int kMaxAutoStages = 4;

StageCount choose_auto(const MoeProblem& problem) {
  if (problem.placement.num_ranks == 1) return {1, false, "one rank: nothing to hide"};
  const int64_t rows = std::accumulate(problem.load.begin(), problem.load.end(), int64_t{0});
  const int64_t fitting = rows / problem.placement.num_ranks / kMinRowsPerStage;
  const int64_t most = std::min<int64_t>(kMaxAutoStages, problem.placement.experts_per_rank());
  const int stages = static_cast<int>(std::min(fitting, most));
  if (stages < 2) {
    return {1, false, fmt::format("{} rows over {} ranks: too few to cut", rows, problem.placement.num_ranks)};
  }
  return {stages, true, fmt::format("{} rows over {} ranks", rows, problem.placement.num_ranks)};
}

StageCount choose_stage_count(const MoeProblem& problem, const PipelineOption& option) {
  const int experts = problem.placement.experts_per_rank();
  switch (option.mode) {
    case PipelineOption::Mode::kOff: return {1, false, "pipeline off"};
    case PipelineOption::Mode::kAuto: return choose_auto(problem);
    case PipelineOption::Mode::kAll: return {experts, true, "one expert per rank and stage"};
    case PipelineOption::Mode::kFixed: break;
  }
  if (option.num_stages > experts) {
    fail(ErrorKind::kUsage, "--eps-pipeline",
         {.what = "more stages than experts on a rank",
          .got = std::to_string(option.num_stages),
          .wanted = fmt::format("at most {} ({} experts over {} ranks)", experts, problem.placement.num_experts,
                                problem.placement.num_ranks),
          .hint = "all"});
  }
  return {option.num_stages, true, "as asked"};
}

std::vector<Stage> cut_stages(const MoeProblem& problem, int num_stages) {
  const ExpertPlacement& placement = problem.placement;
  std::vector<Stage> stages(static_cast<size_t>(num_stages));
  for (Stage& stage : stages) stage.rows_per_rank.assign(static_cast<size_t>(placement.num_ranks), 0);
  std::vector<int32_t> experts(static_cast<size_t>(placement.experts_per_rank()));
  for (int rank = 0; rank < placement.num_ranks; ++rank) {
    const auto r = static_cast<size_t>(rank);
    std::iota(experts.begin(), experts.end(), placement.first_expert(rank));
    const auto load = [&problem](int32_t e) { return problem.load[static_cast<size_t>(e)]; };
    std::stable_sort(experts.begin(), experts.end(), [&](int32_t a, int32_t b) { return load(a) > load(b); });
    std::vector<int> held(stages.size(), 0);
    for (const int32_t e : experts) {
      // The count breaks ties, so experts without rows spread too and no stage stays empty.
      size_t best = 0;
      for (size_t s = 1; s < stages.size(); ++s) {
        if (std::tie(stages[s].rows_per_rank[r], held[s]) < std::tie(stages[best].rows_per_rank[r], held[best])) {
          best = s;
        }
      }
      stages[best].experts.push_back(e);
      stages[best].rows_per_rank[r] += load(e);
      ++held[best];
    }
  }
  for (Stage& stage : stages) {
    std::sort(stage.experts.begin(), stage.experts.end());
    for (int rank = 0; rank < placement.num_ranks; ++rank) {
      std::vector<int64_t> rows;
      for (const int32_t e : stage.experts) {
        if (placement.rank_of(e) == rank) rows.push_back(problem.load[static_cast<size_t>(e)]);
      }
      stage.kernel.push_back(choose_gemm_kind(rows));
    }
  }
  return stages;
}

class OpList {
 public:
  int add(OpKind kind, Lane lane, int stage, std::vector<int> deps) {
    ops_.push_back({kind, lane, stage, std::move(deps)});
    return static_cast<int>(ops_.size()) - 1;
  }
  // gate_up, silu_mul, down, reduce of one stage; returns the last.
  int add_expert_ffn(int stage, std::vector<int> deps) {
    const int gate_up = add(OpKind::kGateUp, Lane::kCompute, stage, std::move(deps));
    const int silu = add(OpKind::kSiluMul, Lane::kCompute, stage, {gate_up});
    const int down = add(OpKind::kDown, Lane::kCompute, stage, {silu});
    return add(OpKind::kReduce, Lane::kCompute, stage, {down});
  }
  std::vector<PlanOp> take() { return std::move(ops_); }

 private:
  std::vector<PlanOp> ops_;
};

std::vector<PlanOp> serial_ops(bool ranks) {
  OpList ops;
  int last = ranks ? ops.add(OpKind::kDispatch, Lane::kDispatch, 0, {}) : -1;
  last = ops.add_expert_ffn(0, ranks ? std::vector<int>{last} : std::vector<int>{});
  if (ranks) last = ops.add(OpKind::kCombine, Lane::kCombine, 0, {last});
  last = ops.add(OpKind::kShared, Lane::kCompute, -1, {last});
  ops.add(OpKind::kFinish, Lane::kCompute, -1, {last});
  return ops.take();
}

std::vector<PlanOp> pipelined_ops(int num_stages, bool ranks) {
  OpList ops;
  std::vector<int> dispatch;
  if (ranks) {
    for (int s = 0; s < num_stages; ++s) dispatch.push_back(ops.add(OpKind::kDispatch, Lane::kDispatch, s, {}));
  }
  // The shared experts need no one: they fill the wait for the first dispatch.
  std::vector<int> before_finish = {ops.add(OpKind::kShared, Lane::kCompute, -1, {})};
  for (int s = 0; s < num_stages; ++s) {
    const int reduce =
        ops.add_expert_ffn(s, ranks ? std::vector<int>{dispatch[static_cast<size_t>(s)]} : std::vector<int>{});
    before_finish.push_back(ranks ? ops.add(OpKind::kCombine, Lane::kCombine, s, {reduce}) : reduce);
  }
  ops.add(OpKind::kFinish, Lane::kCompute, -1, std::move(before_finish));
  return ops.take();
}

}  // namespace

Plan make_plan(const MoeProblem& problem, const PipelineOption& option) {
  EPS_CHECK_EQ(problem.load.size(), static_cast<size_t>(problem.placement.num_experts));
  EPS_CHECK_EQ(problem.tokens_per_rank.size(), static_cast<size_t>(problem.placement.num_ranks));
  const StageCount count = choose_stage_count(problem, option);
  const bool ranks = problem.placement.num_ranks > 1;
  Plan plan;
  plan.policy = count.pipelined ? "eps" : "serial";
  plan.reason = count.reason;
  plan.wire_dtype = problem.wire_dtype;
  plan.stages = cut_stages(problem, count.num_stages);
  plan.ops = count.pipelined ? pipelined_ops(count.num_stages, ranks) : serial_ops(ranks);
  return plan;
}

}  // namespace eps
