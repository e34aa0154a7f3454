#include <fmt/format.h>

#include "base/error.h"
#include "report/plan_json.h"

namespace eps::report {
namespace {

constexpr int kProblemVersion = 1;

OrderedJson shape_json(const plan::MoeShape& shape) {
  return {{"hidden", shape.hidden},
          {"inner", shape.inner},
          {"shared_inner", shape.shared_inner},
          {"top_k", shape.top_k},
          {"weight_dtype", to_string(shape.weight_dtype)},
          {"act_dtype", to_string(shape.act_dtype)}};
}

plan::MoeShape read_shape(const io::JsonObject& object) {
  refuse_unknown_keys(object, {"hidden", "inner", "shared_inner", "top_k", "weight_dtype", "act_dtype"});
  constexpr int64_t kMaxSize = int64_t{1} << 31;
  plan::MoeShape shape;
  shape.hidden = object.positive_int("hidden", kMaxSize);
  shape.inner = object.positive_int("inner", kMaxSize);
  shape.shared_inner = object.non_negative_int("shared_inner", kMaxSize);
  shape.top_k = static_cast<int>(object.positive_int("top_k", 1 << 16));
  shape.weight_dtype = read_dtype(object, "weight_dtype");
  shape.act_dtype = read_dtype(object, "act_dtype");
  return shape;
}

moe::RoutingSummary read_routing(const io::JsonObject& object, const moe::ExpertPlacement& placement, int top_k) {
  refuse_unknown_keys(object, {"tokens_between", "partials_between", "visits", "local_load"});
  const auto ranks = static_cast<size_t>(placement.num_ranks);
  const auto experts = static_cast<size_t>(placement.num_experts);
  moe::RoutingSummary routing;
  routing.tokens_between = read_counts(object, "tokens_between", ranks * ranks, "pair of ranks");
  routing.partials_between = read_counts(object, "partials_between", ranks * ranks, "pair of ranks");
  routing.visits =
      read_counts(object, "visits", ranks * (static_cast<size_t>(top_k) + 1), "rank and number of experts");
  routing.local_load = read_counts(object, "local_load", experts, "expert");
  return routing;
}

}  // namespace

std::string to_json(const plan::MoeProblem& problem) {
  OrderedJson may_use = OrderedJson::array();
  for (const plan::Wire& wire : problem.may_use) may_use.push_back(wire_json(wire));
  const moe::RoutingSummary& routing = problem.routing;
  const OrderedJson out = {{"version", kProblemVersion},
                           {"shape", shape_json(problem.shape)},
                           {"strategy", plan::to_string(problem.strategy)},
                           {"num_ranks", problem.placement.num_ranks},
                           {"num_experts", problem.placement.num_experts},
                           {"tokens_per_rank", problem.tokens_per_rank},
                           {"load", problem.load},
                           {"routing",
                            {{"tokens_between", routing.tokens_between},
                             {"partials_between", routing.partials_between},
                             {"visits", routing.visits},
                             {"local_load", routing.local_load}}},
                           {"wire", wire_json(problem.wire)},
                           {"may_use", std::move(may_use)}};
  return io::dump_json(out);
}

plan::MoeProblem parse_problem(std::string_view json, const std::string& where) {
  const io::Json value = io::parse_json(json, where);
  const io::JsonObject object(value, where);
  require_version(object, kProblemVersion);
  refuse_unknown_keys(object, {"version", "shape", "strategy", "num_ranks", "num_experts", "tokens_per_rank", "load",
                               "routing", "wire", "may_use"});
  plan::MoeProblem problem;
  problem.shape = read_shape(object.child("shape"));
  problem.strategy = read_strategy(object, "strategy");
  const auto ranks = static_cast<int>(object.positive_int("num_ranks", 1 << 16));
  const auto experts = static_cast<int>(object.positive_int("num_experts", 1 << 20));
  if (problem.strategy != plan::Strategy::kTpTp && experts % ranks != 0) {
    object.reject("num_ranks", fmt::format("a divisor of num_experts ({})", experts));
  }
  problem.placement = {experts, ranks};
  problem.tokens_per_rank = read_counts(object, "tokens_per_rank", static_cast<size_t>(ranks), "rank");
  problem.load = read_counts(object, "load", static_cast<size_t>(experts), "expert");
  problem.routing = read_routing(object.child("routing"), problem.placement, problem.shape.top_k);
  problem.wire = read_wire(object.child("wire"));
  for (const io::JsonObject& wire : object.children("may_use")) problem.may_use.push_back(read_wire(wire));
  return problem;
}

}  // namespace eps::report
