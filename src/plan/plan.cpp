#include "plan/plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace eps {

std::string_view to_string(Lane lane) {
  switch (lane) {
    case Lane::kCompute: return "compute";
    case Lane::kDispatch: return "dispatch";
    case Lane::kCombine: return "combine";
  }
  return "?";
}

std::string_view to_string(OpKind kind) {
  switch (kind) {
    case OpKind::kDispatch: return "dispatch";
    case OpKind::kShared: return "shared";
    case OpKind::kGateUp: return "gate_up";
    case OpKind::kSiluMul: return "silu_mul";
    case OpKind::kDown: return "down";
    case OpKind::kReduce: return "reduce";
    case OpKind::kCombine: return "combine";
    case OpKind::kFinish: return "finish";
  }
  return "?";
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

void check_stages(const Plan& plan, const MoeProblem& problem, std::vector<std::string>& faults) {
  std::vector<int> times(static_cast<size_t>(problem.placement.num_experts), 0);
  for (const Stage& stage : plan.stages) {
    std::vector<int64_t> rows(static_cast<size_t>(problem.placement.num_ranks), 0);
    for (const int32_t e : stage.experts) {
      if (e < 0 || e >= problem.placement.num_experts) {
        faults.push_back(fmt::format("stage holds expert {}", e));
        continue;
      }
      ++times[static_cast<size_t>(e)];
      rows[static_cast<size_t>(problem.placement.rank_of(e))] += problem.load[static_cast<size_t>(e)];
    }
    if (rows != stage.rows_per_rank) faults.push_back("a stage's rows differ from its experts' load");
  }
  for (size_t e = 0; e < times.size(); ++e) {
    if (times[e] != 1) faults.push_back(fmt::format("expert {} is in {} stages", e, times[e]));
  }
}

// reaches[i][j]: op i cannot start before op j has ended, through dependencies or its lane's order.
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

std::vector<std::string> find_plan_faults(const Plan& plan, const MoeProblem& problem) {
  std::vector<std::string> faults;
  check_stages(plan, problem, faults);
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    for (const int d : plan.ops[i].deps) {
      if (d < 0 || d >= static_cast<int>(i)) faults.push_back(fmt::format("op {} waits for op {}", i, d));
    }
  }
  const auto find = [&plan](OpKind kind, int stage) {
    for (size_t i = 0; i < plan.ops.size(); ++i) {
      if (plan.ops[i].kind == kind && plan.ops[i].stage == stage) return static_cast<int>(i);
    }
    return -1;
  };
  const auto after = order_of(plan);
  const auto want_order = [&](int earlier, int later, std::string_view what) {
    if (earlier < 0 || later < 0 || !after[static_cast<size_t>(later)][static_cast<size_t>(earlier)]) {
      faults.push_back(std::string(what));
    }
  };
  const int finish = find(OpKind::kFinish, -1);
  const bool ranks = problem.placement.num_ranks > 1;
  for (int s = 0; s < plan.num_stages(); ++s) {
    const int gate_up = find(OpKind::kGateUp, s);
    const int reduce = find(OpKind::kReduce, s);
    if (ranks) {
      // Every earlier stage's dispatch too: dispatch at first need means later stages reuse its rows.
      for (int earlier = 0; earlier <= s; ++earlier) {
        want_order(find(OpKind::kDispatch, earlier), gate_up, fmt::format("stage {} computes before its rows came", s));
      }
      want_order(reduce, find(OpKind::kCombine, s), fmt::format("stage {} returns sums before they are made", s));
      want_order(find(OpKind::kCombine, s), finish, fmt::format("finish does not wait for combine {}", s));
    }
    want_order(gate_up, find(OpKind::kSiluMul, s), fmt::format("stage {}: silu_mul before gate_up", s));
    want_order(find(OpKind::kSiluMul, s), find(OpKind::kDown, s), fmt::format("stage {}: down before silu_mul", s));
    want_order(find(OpKind::kDown, s), reduce, fmt::format("stage {}: reduce before down", s));
    want_order(reduce, finish, fmt::format("finish does not wait for reduce {}", s));
  }
  if (const int shared = find(OpKind::kShared, -1); shared >= 0) {
    want_order(shared, finish, "finish does not wait for the shared experts");
  }
  return faults;
}

}  // namespace eps
