#include "report/plan_json.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "report/sample_plans.h"

namespace eps::report {
namespace {

plan::MoeProblem random_problem(std::mt19937& rng) {
  const auto draw = [&rng](int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); };
  const auto counts = [&](int size) {
    std::vector<int64_t> out;
    for (int i = 0; i < size; ++i) out.push_back(int64_t{draw(0, 1 << 30)} * draw(0, 4));
    return out;
  };
  plan::MoeProblem problem;
  const int ranks = draw(1, 6);
  problem.shape = {draw(1, 9000), draw(1, 9000), draw(0, 9000), draw(1, 8), DType::kF8E4M3, DType::kF32};
  problem.strategy = static_cast<plan::Strategy>(draw(0, 2));
  problem.placement = moe::place_experts(ranks * draw(1, 9), ranks);
  problem.load = counts(problem.placement.num_experts);
  problem.tokens_per_rank = counts(ranks);
  problem.routing = {counts(ranks * ranks), counts(ranks * ranks), counts(ranks * (problem.shape.top_k + 1)),
                     counts(problem.placement.num_experts)};
  problem.wire = {DType::kF8E4M3, DType::kBF16};
  if (draw(0, 1) == 1) problem.may_use = {{DType::kF32, DType::kF32}, {DType::kBF16, DType::kF8E4M3}};
  return problem;
}

TEST(PlanJson, WrittenPlansReadBackEqual) {
  std::mt19937 rng(11);
  for (int trial = 0; trial < 300; ++trial) {
    const plan::Plan plan = random_plan(rng);
    EXPECT_EQ(parse_plan(to_json(plan, {{"model", "x"}}), "plan"), plan);
    const plan::MoeProblem problem = random_problem(rng);
    EXPECT_EQ(parse_problem(to_json(problem), "problem"), problem);
  }
  EXPECT_EQ(parse_plan(to_json(plan::Plan{}), "plan"), plan::Plan{});
}

TEST(PlanJson, HasTheMainFieldsAtTheTopLevel) {
  const io::Json json = io::parse_json(to_json(sample_plan()), "plan");
  EXPECT_EQ(json["policy"], "eps");
  EXPECT_EQ(json["strategy"], "dp+ep");
  EXPECT_EQ(json["num_stages"], 3);
  EXPECT_EQ(json["makespan_us"], 100);
  EXPECT_EQ(json["stages"].size(), 3U);
  EXPECT_EQ(json["stages"][0]["gate_up_kernel"], "dense");  // all ranks agree
  EXPECT_EQ(json["stages"][1]["gate_up_kernel"], io::Json::array({"dense", "grouped"}));
  EXPECT_EQ(json["stages"][1]["rows"], io::Json::array({41, 30}));
  EXPECT_EQ(json["overlap"]["communication_us"], 54);
  EXPECT_EQ(json["candidates"].size(), 5U);
  EXPECT_EQ(json["candidates"][3]["wire"]["dispatch"], "fp8");
  for (const io::Json& candidate : json["candidates"]) EXPECT_FALSE(candidate["reason"].get<std::string>().empty());
  EXPECT_EQ(json["ops"].size(), sample_plan().ops.size());
  EXPECT_FALSE(json["ops"][0].contains("share"));
}

TEST(PlanJson, StagesOfLocalTokensAreNotCountedAsStagesByExpert) {
  plan::Plan plan = sample_plan();
  plan.stages[0].part = moe::TokenPart::kLocal;
  plan.stages[1].part = moe::TokenPart::kRemote;
  const io::Json json = io::parse_json(to_json(plan), "plan");
  EXPECT_EQ(json["num_stages"], 2);
  EXPECT_EQ(json["stages"].size(), 3U);
  EXPECT_EQ(parse_plan(to_json(plan), "plan"), plan);
}

std::string refusal(const std::function<void(io::Json&)>& change, bool of_problem = false) {
  std::mt19937 rng(5);
  io::Json json = io::parse_json(of_problem ? to_json(random_problem(rng)) : to_json(sample_plan()), "plan");
  change(json);
  try {
    if (of_problem) {
      parse_problem(json.dump(), "file.json");
    } else {
      parse_plan(json.dump(), "file.json");
    }
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInput) << e.what();
    EXPECT_EQ(e.where(), "file.json");
    return e.what();
  }
  return "accepted";
}

void expect_names(const std::string& message, const std::string& key) {
  EXPECT_NE(message.find('"' + key + '"'), std::string::npos) << message;
}

TEST(PlanJson, RefusesInvalidPlans) {
  expect_names(refusal([](io::Json& j) { j["colour"] = 1; }), "colour");
  expect_names(refusal([](io::Json& j) { j["stages"][1]["speed"] = 1; }), "stages[1].speed");
  expect_names(refusal([](io::Json& j) { j["version"] = 2; }), "version");
  expect_names(refusal([](io::Json& j) { j.erase("version"); }), "version");
  expect_names(refusal([](io::Json& j) { j.erase("makespan_us"); }), "makespan_us");
  expect_names(refusal([](io::Json& j) { j["policy"] = "clever"; }), "policy");
  expect_names(refusal([](io::Json& j) { j["num_stages"] = 4; }), "num_stages");
  expect_names(refusal([](io::Json& j) { j["ops"][4]["deps"] = {4}; }), "ops[4].deps");
  expect_names(refusal([](io::Json& j) { j["ops"][4]["deps"] = {-1}; }), "ops[4].deps");
  expect_names(refusal([](io::Json& j) { j["ops"][0]["stage"] = 3; }), "ops[0].stage");
  expect_names(refusal([](io::Json& j) { j["ops"][0]["kind"] = "juggle"; }), "ops[0].kind");
  expect_names(refusal([](io::Json& j) { j["ops"][3]["share"] = {600, 400}; }), "ops[3].share");
  expect_names(refusal([](io::Json& j) { j["ops"][2].erase("end_us"); }), "ops[2].end_us");
  expect_names(refusal([](io::Json& j) {
                 j["ops"][0].erase("begin_us");
                 j["ops"][0].erase("end_us");
               }),
               "ops[1].begin_us");
  expect_names(refusal([](io::Json& j) { j["stages"][0]["rows"] = {-1}; }), "stages[0].rows");
  expect_names(refusal([](io::Json& j) { j["stages"][0]["down_kernel"] = "sparse"; }), "stages[0].down_kernel");
  expect_names(refusal([](io::Json& j) { j["stages"][0]["down_kernel"] = {"dense", "?"}; }), "stages[0].down_kernel");
  expect_names(refusal([](io::Json& j) { j["candidates"][0]["wire"]["dispatch"] = "f7"; }),
               "candidates[0].wire.dispatch");
  expect_names(refusal([](io::Json& j) { j["candidates"][0]["verdict"] = "maybe"; }), "candidates[0].verdict");
  EXPECT_THROW(parse_plan("[]", "x"), Error);
  EXPECT_THROW(parse_plan("", "x"), Error);
}

TEST(PlanJson, RefusesProblemsWhoseSizesDisagree) {
  expect_names(refusal([](io::Json& j) { j["load"].push_back(1); }, true), "load");
  expect_names(refusal([](io::Json& j) { j["tokens_per_rank"] = io::Json::array(); }, true), "tokens_per_rank");
  expect_names(refusal([](io::Json& j) { j["routing"]["visits"].push_back(1); }, true), "routing.visits");
  expect_names(refusal([](io::Json& j) { j["num_ranks"] = 0; }, true), "num_ranks");
  expect_names(refusal([](io::Json& j) { j["shape"]["hidden"] = -4; }, true), "shape.hidden");
  expect_names(refusal([](io::Json& j) { j["shape"]["depth"] = 4; }, true), "shape.depth");
  expect_names(refusal([](io::Json& j) { j["load"][0] = -1; }, true), "load");
  expect_names(refusal([](io::Json& j) { j["strategy"] = "ep"; }, true), "strategy");
  expect_names(refusal([](io::Json& j) { j["version"] = "1"; }, true), "version");
}

TEST(PlanJson, NumbersThatJsonCannotRepresentAreAnError) {
  plan::Plan plan = sample_plan();
  plan.makespan_us = std::numeric_limits<double>::infinity();
  EXPECT_THROW(to_json(plan), Error);
}

}  // namespace
}  // namespace eps::report
