#include "report/plan_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "plan/candidate_list.h"
#include "plan/overlap.h"
#include "report/reason.h"

namespace eps::report {
namespace {

// JSON has no infinity, and the null that would be written instead could not be read back.
double finite(double value) {
  EPS_CHECK(std::isfinite(value), "a number of a plan is {}", value);
  return value;
}

OrderedJson sms_json(const plan::SmBudget& sms) { return {{"comm", sms.comm}, {"gemm", sms.gemm}}; }

plan::SmBudget read_sms(const io::JsonObject& object) {
  refuse_unknown_keys(object, {"comm", "gemm"});
  return {object.get<int>("comm"), object.get<int>("gemm")};
}

OrderedJson paper_json(const plan::PaperView& paper) {
  return {{"eps0", finite(paper.eps0)},
          {"eps1", finite(paper.eps1)},
          {"overhead_us", finite(paper.overhead_us)},
          {"best_stages", finite(paper.best_stages)}};
}

plan::PaperView read_paper(const io::JsonObject& object) {
  refuse_unknown_keys(object, {"eps0", "eps1", "overhead_us", "best_stages"});
  return {object.get<double>("eps0"), object.get<double>("eps1"), object.get<double>("overhead_us"),
          object.get<double>("best_stages")};
}

OrderedJson stage_json(const plan::Stage& stage) {
  const size_t num_ranks = stage.rows_per_rank.size();
  return {{"experts", stage.experts},
          {"part", moe::to_string(stage.part)},
          {"rows", stage.rows_per_rank},
          {"gate_up_kernel", kernels_json(stage.gate_up_kernel, num_ranks)},
          {"down_kernel", kernels_json(stage.down_kernel, num_ranks)}};
}

plan::Stage read_stage(const io::JsonObject& object) {
  refuse_unknown_keys(object, {"experts", "part", "rows", "gate_up_kernel", "down_kernel"});
  plan::Stage stage;
  stage.experts = object.get<std::vector<int>>("experts");
  stage.part = read_token_part(object, "part");
  stage.rows_per_rank = read_counts(object, "rows");
  stage.gate_up_kernel = read_kernels(object, "gate_up_kernel", stage.rows_per_rank.size());
  stage.down_kernel = read_kernels(object, "down_kernel", stage.rows_per_rank.size());
  return stage;
}

OrderedJson op_json(const plan::PlanOp& op, const plan::OpTime* time) {
  OrderedJson out = {
      {"kind", plan::to_string(op.kind)}, {"lane", plan::to_string(op.lane)}, {"stage", op.stage}, {"deps", op.deps}};
  if (op.share != plan::TokenShare{}) out["share"] = {op.share.begin, op.share.end};
  if (time != nullptr) {
    out["begin_us"] = finite(time->begin_us);
    out["end_us"] = finite(time->end_us);
  }
  return out;
}

plan::PlanOp read_op(const io::JsonObject& object, int index, int num_stages) {
  refuse_unknown_keys(object, {"kind", "lane", "stage", "deps", "share", "begin_us", "end_us"});
  plan::PlanOp op;
  op.kind = read_op_kind(object, "kind");
  op.lane = read_lane(object, "lane");
  op.stage = static_cast<int>(object.int_in("stage", -1, num_stages - 1));
  op.deps = object.get<std::vector<int>>("deps");
  if (std::ranges::any_of(op.deps, [index](int d) { return d < 0 || d >= index; })) {
    object.reject("deps", fmt::format("indices of ops before this one, which is number {}", index));
  }
  if (object.has("share")) {
    const auto share = object.get<std::vector<int>>("share");
    const bool sound = share.size() == 2 && 0 <= share[0] && share[0] <= share[1] && share[1] <= 1000;
    if (!sound) object.reject("share", "two numbers from 0 to 1000, the smaller one first");
    op.share = {share[0], share[1]};
  }
  return op;
}

OrderedJson candidate_json(const plan::Candidate& c, const plan::Candidate* chosen) {
  return {{"policy", plan::to_string(c.policy)},
          {"strategy", plan::to_string(c.strategy)},
          {"num_stages", c.num_stages},
          {"makespan_us", finite(c.makespan_us)},
          {"bound_us", finite(c.bound_us)},
          {"compute_us", finite(c.compute_us)},
          {"comm_us", finite(c.comm_us)},
          {"grouped_us", finite(c.grouped_us)},
          {"memory_gb", finite(c.memory_gb)},
          {"wire", wire_json(c.wire)},
          {"sms", sms_json(c.sms)},
          {"uses_dense", c.uses_dense},
          {"uses_grouped", c.uses_grouped},
          {"local_first", c.local_first},
          {"local_around", c.local_around},
          {"split_shared", c.split_shared},
          {"verdict", word_of(c.verdict)},
          {"reason", chosen == nullptr ? std::string() : reason_of(c, *chosen)}};
}

plan::Candidate read_candidate(const io::JsonObject& object) {
  refuse_unknown_keys(object, {"policy", "strategy", "num_stages", "makespan_us", "bound_us", "compute_us", "comm_us",
                               "grouped_us", "memory_gb", "wire", "sms", "uses_dense", "uses_grouped", "local_first",
                               "local_around", "split_shared", "verdict", "reason"});
  plan::Candidate c;
  c.policy = read_policy(object, "policy");
  c.strategy = read_strategy(object, "strategy");
  c.num_stages = object.get<int>("num_stages");
  c.makespan_us = object.get<double>("makespan_us");
  c.bound_us = object.get<double>("bound_us");
  c.compute_us = object.get<double>("compute_us");
  c.comm_us = object.get<double>("comm_us");
  c.grouped_us = object.get<double>("grouped_us");
  c.memory_gb = object.get<double>("memory_gb");
  c.wire = read_wire(object.child("wire"));
  c.sms = read_sms(object.child("sms"));
  c.uses_dense = object.get<bool>("uses_dense");
  c.uses_grouped = object.get<bool>("uses_grouped");
  c.local_first = object.get<bool>("local_first");
  c.local_around = object.get<bool>("local_around");
  c.split_shared = object.get<bool>("split_shared");
  c.verdict = read_verdict(object, "verdict");
  object.get<std::string>("reason");
  return c;
}

void read_ops(const io::JsonObject& object, plan::Plan& plan) {
  for (const io::JsonObject& op : object.children("ops")) {
    plan.ops.push_back(read_op(op, static_cast<int>(plan.ops.size()), plan.num_stages()));
    if (!op.has("begin_us") && !op.has("end_us") && plan.predicted.empty()) continue;
    plan.predicted.push_back({op.get<double>("begin_us"), op.get<double>("end_us")});
    if (plan.predicted.size() != plan.ops.size()) op.reject("begin_us", "times for every op or for none");
  }
}

}  // namespace

std::string to_json(const plan::Plan& plan, const OrderedJson& about) {
  const bool timed = !plan.predicted.empty();
  if (timed) EPS_CHECK_EQ(plan.predicted.size(), plan.ops.size());
  OrderedJson stages = OrderedJson::array();
  for (const plan::Stage& stage : plan.stages) stages.push_back(stage_json(stage));
  OrderedJson ops = OrderedJson::array();
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    ops.push_back(op_json(plan.ops[i], timed ? &plan.predicted[i] : nullptr));
  }
  OrderedJson candidates = OrderedJson::array();
  const plan::Candidate* chosen = plan::find_chosen(plan.candidates);
  for (const plan::Candidate& c : plan.candidates) candidates.push_back(candidate_json(c, chosen));
  const plan::PlanOverlap overlap = plan::predicted_overlap(plan);
  OrderedJson out = {{"version", plan::Plan::kVersion},
                     {"policy", plan::to_string(plan.policy)},
                     {"strategy", plan::to_string(plan.strategy)},
                     {"num_stages", plan.num_expert_stages()},
                     {"reason", plan.reason},
                     {"makespan_us", finite(plan.makespan_us)},
                     {"bound_us", finite(plan.bound_us)},
                     {"bytes_dispatch", plan.bytes_dispatch},
                     {"bytes_combine", plan.bytes_combine},
                     {"overlap", {{"communication_us", overlap.communication_us}, {"hidden_us", overlap.hidden_us}}},
                     {"wire", wire_json(plan.wire)},
                     {"transport", plan::to_string(plan.transport)},
                     {"sms", sms_json(plan.sms)},
                     {"paper", paper_json(plan.paper)},
                     {"stages", std::move(stages)},
                     {"ops", std::move(ops)},
                     {"candidates", std::move(candidates)}};
  if (!about.is_null()) out["about"] = about;
  return io::dump_json(out);
}

plan::Plan parse_plan(std::string_view json, const std::string& where) {
  const io::Json value = io::parse_json(json, where);
  const io::JsonObject object(value, where);
  require_version(object, plan::Plan::kVersion);
  refuse_unknown_keys(object, {"version", "policy", "strategy", "num_stages", "reason", "makespan_us", "bound_us",
                               "bytes_dispatch", "bytes_combine", "overlap", "wire", "transport", "sms", "paper",
                               "stages", "ops", "candidates", "about"});
  plan::Plan plan;
  plan.policy = read_policy(object, "policy");
  plan.strategy = read_strategy(object, "strategy");
  plan.reason = object.get<std::string>("reason");
  plan.makespan_us = object.get<double>("makespan_us");
  plan.bound_us = object.get<double>("bound_us");
  plan.bytes_dispatch = object.non_negative_int("bytes_dispatch");
  plan.bytes_combine = object.non_negative_int("bytes_combine");
  plan.wire = read_wire(object.child("wire"));
  if (object.has("transport")) plan.transport = read_transport(object, "transport");
  plan.sms = read_sms(object.child("sms"));
  plan.paper = read_paper(object.child("paper"));
  for (const io::JsonObject& stage : object.children("stages")) plan.stages.push_back(read_stage(stage));
  read_ops(object, plan);
  for (const io::JsonObject& c : object.children("candidates")) plan.candidates.push_back(read_candidate(c));
  const int num_stages = plan.num_expert_stages();
  if (object.get<int>("num_stages") != num_stages) {
    object.reject("num_stages", fmt::format("{}, as the stages have it", num_stages));
  }
  return plan;
}

}  // namespace eps::report
