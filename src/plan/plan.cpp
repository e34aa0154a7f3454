#include "plan/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "plan/op_table.h"

namespace eps::plan {

std::string_view to_string(Lane lane) { return lane_row(lane).name; }

std::string_view to_string(OpKind kind) { return op_row(kind).name; }

std::string_view to_string(Policy policy) {
  switch (policy) {
    case Policy::kSerial: return "serial";
    case Policy::kEps: return "eps";
    case Policy::kMicrobatch: return "microbatch";
    case Policy::kTp: return "tp";
  }
  return "?";
}

std::string_view to_string(Transport transport) {
  switch (transport) {
    case Transport::kMessages: return "messages";
    case Transport::kFlags: return "flags";
  }
  return "?";
}

int Plan::num_expert_stages() const {
  if (policy != Policy::kEps) return 1;
  return static_cast<int>(std::count_if(stages.begin(), stages.end(),
                                        [](const Stage& stage) { return stage.part != moe::TokenPart::kLocal; }));
}

bool is_chain(const Plan& plan) {
  for (size_t i = 1; i < plan.ops.size(); ++i) {
    const auto& deps = plan.ops[i].deps;
    const bool same_lane = plan.ops[i].lane == plan.ops[i - 1].lane;
    if (!same_lane && std::find(deps.begin(), deps.end(), static_cast<int>(i) - 1) == deps.end()) return false;
  }
  return true;
}

namespace {

constexpr int kNumParts = 5;

// Checks that the stages of each expert cover all of its rows, each exactly once.
void check_stages(const Plan& plan, const MoeProblem& problem, std::vector<std::string>& faults) {
  const auto num_experts = static_cast<size_t>(problem.placement.num_experts);
  std::vector<std::array<int, kNumParts>> times(num_experts, std::array<int, kNumParts>{});
  for (const Stage& stage : plan.stages) {
    for (const int32_t e : stage.experts) {
      if (e < 0 || e >= problem.placement.num_experts) {
        faults.push_back(fmt::format("a stage contains expert {}, which does not exist", e));
        continue;
      }
      ++times[static_cast<size_t>(e)][static_cast<size_t>(stage.part)];
    }
    const auto ranks = static_cast<size_t>(problem.placement.num_ranks);
    if (stage.rows_per_rank != count_stage_rows(plan, stage, problem)) {
      faults.push_back("a stage's rows differ from its experts' load");
    }
    if (stage.gate_up_kernel.size() != ranks || stage.down_kernel.size() != ranks) {
      faults.push_back("a stage does not have a kernel for every rank");
    }
  }
  const std::array<int, kNumParts> whole = {1, 0, 0, 0, 0};
  const std::array<int, kNumParts> by_place = {0, 1, 1, 0, 0};
  const std::array<int, kNumParts> by_half = {0, 0, 0, 1, 1};
  for (size_t e = 0; e < num_experts; ++e) {
    if (times[e] == whole || times[e] == by_place || times[e] == by_half) continue;
    faults.push_back(fmt::format("the rows of expert {} are not in exactly one stage", e));
  }
}

// Checks that the shared experts process every token exactly once.
void check_shared(const Plan& plan, const MoeProblem& problem, std::vector<std::string>& faults) {
  int done = 0;
  for (const PlanOp& op : plan.ops) {
    if (op.kind != OpKind::kShared) continue;
    if (op.share.begin != done || op.share.end <= op.share.begin)
      faults.push_back("the shared experts skip or repeat tokens");
    done = op.share.end;
  }
  if (done != (problem.shape.shared_inner > 0 ? 1000 : 0))
    faults.push_back("the shared experts do not process every token");
}

// Checks that every op occurs once, on its lane, and belongs to an existing stage. (Shared experts may be in parts; see
// check_shared.)
void check_ops(const Plan& plan, const MoeProblem& problem, std::vector<std::string>& faults) {
  std::set<std::pair<OpKind, int>> seen;
  const bool travels = problem.placement.num_ranks > 1 && plan.policy != Policy::kTp;
  for (const PlanOp& op : plan.ops) {
    const OpRow& row = op_row(op.kind);
    if (op.lane != row.lane)
      faults.push_back(fmt::format("op {} is on the {} lane", to_string(op.kind), to_string(op.lane)));
    if (row.of_stage ? op.stage < 0 || op.stage >= plan.num_stages() : op.stage != -1) {
      faults.push_back(fmt::format("op {} has stage {}", to_string(op.kind), op.stage));
      continue;
    }
    if (op.kind != OpKind::kShared && !seen.emplace(op.kind, op.stage).second) {
      faults.push_back(fmt::format("op {} of stage {} occurs twice", to_string(op.kind), op.stage));
    }
    const bool message = row.of_stage && lane_row(row.lane).moves_rows;
    if (message && (!travels || plan.stages[static_cast<size_t>(op.stage)].part == moe::TokenPart::kLocal)) {
      faults.push_back(
          fmt::format("op {} of stage {} is not needed: its rows are not sent", to_string(op.kind), op.stage));
    }
  }
}

// order_of(plan)[i][j] is true if op i cannot start before op j has ended, because of dependencies or the order of its
// lane.
std::vector<std::vector<bool>> order_of(const Plan& plan) {
  const size_t n = plan.ops.size();
  std::vector<std::vector<bool>> after(n, std::vector<bool>(n, false));
  std::vector<int> last_on_lane(kNumLanes, -1);
  for (size_t i = 0; i < n; ++i) {
    std::vector<int> before = plan.ops[i].deps;
    int& last = last_on_lane[static_cast<size_t>(plan.ops[i].lane)];
    if (last >= 0) before.push_back(last);
    for (const int d : before) {
      if (d < 0 || d >= static_cast<int>(i)) continue;
      after[i][static_cast<size_t>(d)] = true;
      for (size_t j = 0; j < n; ++j) {
        if (after[static_cast<size_t>(d)][j]) after[i][j] = true;
      }
    }
    last = static_cast<int>(i);
  }
  return after;
}

}  // namespace

std::vector<int64_t> count_stage_rows(const Plan& plan, const Stage& stage, const MoeProblem& problem) {
  std::vector<int64_t> rows(static_cast<size_t>(problem.placement.num_ranks), 0);
  for (const int32_t e : stage.experts) {
    if (e < 0 || e >= problem.placement.num_experts) continue;
    const auto at = static_cast<size_t>(e);
    const int64_t count = moe::rows_in_part(problem.load[at], problem.routing.local_load[at], stage.part);
    if (plan.policy == Policy::kTp) {
      for (int64_t& r : rows) r += count;
    } else {
      rows[static_cast<size_t>(problem.placement.rank_of(e))] += count;
    }
  }
  return rows;
}

std::vector<std::string> find_plan_faults(const Plan& plan, const MoeProblem& problem) {
  std::vector<std::string> faults;
  check_stages(plan, problem, faults);
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    for (const int d : plan.ops[i].deps) {
      if (d < 0 || d >= static_cast<int>(i))
        faults.push_back(fmt::format("op {} depends on op {}, which is not an earlier one", i, d));
    }
  }
  check_ops(plan, problem, faults);
  const bool is_whole = plan.num_stages() == 1 && plan.stages.front().part == moe::TokenPart::kAll;
  if (plan.transport == Transport::kFlags && (!is_whole || !is_chain(plan))) {
    faults.push_back("the transport flags needs one stage with all rows, and ops that follow one another");
  }
  const auto find = [&plan](OpKind kind, int stage) {
    for (size_t i = 0; i < plan.ops.size(); ++i) {
      if (plan.ops[i].kind == kind && plan.ops[i].stage == stage) return static_cast<int>(i);
    }
    return -1;
  };
  const auto after = order_of(plan);
  const auto require_order = [&](int earlier, int later, std::string_view what) {
    if (earlier < 0 || later < 0 || !after[static_cast<size_t>(later)][static_cast<size_t>(earlier)]) {
      faults.push_back(std::string(what));
    }
  };
  const int finish = find(OpKind::kFinish, -1);
  const bool ranks = problem.placement.num_ranks > 1 && plan.policy != Policy::kTp;
  const auto is_local = [&plan](int s) { return plan.stages[static_cast<size_t>(s)].part == moe::TokenPart::kLocal; };
  for (int s = 0; s < plan.num_stages(); ++s) {
    const int gate_up = find(OpKind::kGateUp, s);
    const int reduce = find(OpKind::kReduce, s);
    if (ranks && !is_local(s)) {
      // This includes the dispatch of every earlier stage: tokens are sent only once, and later stages reuse their
      // rows.
      for (int earlier = 0; earlier <= s; ++earlier) {
        if (is_local(earlier)) continue;
        require_order(find(OpKind::kDispatch, earlier), gate_up,
                      fmt::format("stage {} computes before its rows have arrived", s));
      }
      require_order(reduce, find(OpKind::kCombine, s),
                    fmt::format("stage {} returns sums before they are computed", s));
      require_order(find(OpKind::kCombine, s), finish, fmt::format("finish does not wait for combine {}", s));
    }
    require_order(gate_up, find(OpKind::kSiluMul, s), fmt::format("stage {}: silu_mul does not wait for gate_up", s));
    require_order(find(OpKind::kSiluMul, s), find(OpKind::kDown, s),
                  fmt::format("stage {}: down does not wait for silu_mul", s));
    require_order(find(OpKind::kDown, s), reduce, fmt::format("stage {}: reduce does not wait for down", s));
    require_order(reduce, finish, fmt::format("finish does not wait for reduce {}", s));
  }
  check_shared(plan, problem, faults);
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    if (plan.ops[i].kind == OpKind::kShared)
      require_order(static_cast<int>(i), finish, "finish does not wait for shared");
  }
  if (plan.strategy != Strategy::kDpEp && problem.placement.num_ranks > 1) {
    require_order(find(OpKind::kEnter, -1), finish, "the layer begins before its tokens have arrived");
    require_order(finish, find(OpKind::kLeave, -1), "results leave before they are computed");
  }
  return faults;
}

}  // namespace eps::plan
