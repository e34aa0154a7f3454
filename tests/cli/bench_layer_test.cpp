// `bench layer`: its fields, its check of the layer's output, and refused options.
#include "measure/layer_bench.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>

#include "base/error.h"
#include "cli/table.h"
#include "engine/factory.h"
#include "engine/model_folder.h"
#include "measure/layer_baseline.h"
#include "measure/layer_ranks.h"
#include "plan/builtin_profile.h"
#include "plan/planner.h"
#include "sim/workload.h"
#include "support/run_command.h"

namespace eps::cli {
namespace {

const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/golden/plain";  // 4 experts, top-2, 1 shared

// Runs the command and returns what it prints.
std::string layer(const std::string& arguments) {
  const bool counts = arguments.find("-r ") != std::string::npos;
  return test::run_command("bench layer --threads 1 --limit-size 64 " + std::string(counts ? "" : "-r 2 ") + arguments);
}

nlohmann::json layer_json(const std::string& arguments) {
  const std::string out = layer(arguments + " --json");
  EXPECT_EQ(out.find('\n'), out.size() - 1) << "one line";
  return nlohmann::json::parse(out);
}

std::string error_of(const std::string& arguments, ErrorKind kind) {
  try {
    layer(arguments);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return e.what();
  }
  return "no error";
}

TEST(BenchLayer, JsonHasEveryField) {
  const auto o = layer_json("-m " + kModel + " --tokens 50 --ep 2 --eps-pipeline 2");
  for (const char* field : {"bench",
                            "version",
                            "test_time",
                            "emulate_link",
                            "cpu",
                            "model",
                            "layer",
                            "hidden",
                            "inner",
                            "shared_inner",
                            "num_experts",
                            "top_k",
                            "tokens",
                            "skew",
                            "seed",
                            "rows_per_expert",
                            "device",
                            "op_set",
                            "dtype",
                            "isa",
                            "ep",
                            "threads",
                            "eps_pipeline",
                            "policy",
                            "num_stages",
                            "kernel",
                            "flops",
                            "repetitions",
                            "median_us",
                            "p10_us",
                            "p90_us",
                            "samples_us",
                            "tflops",
                            "pct_of_limit",
                            "limit_tflops",
                            "limit_source",
                            "gemm_us",
                            "gemm_tflops",
                            "baseline",
                            "baseline_implementation",
                            "baseline_us",
                            "baseline_samples_us",
                            "baseline_tflops",
                            "baseline_pct_of_limit",
                            "ratio",
                            "ratio_p10",
                            "ratio_p90",
                            "overlap",
                            "communication_us",
                            "worst_error"}) {
    EXPECT_TRUE(o.contains(field)) << field;
  }
  EXPECT_EQ(o["tokens"], 50);
  EXPECT_EQ(o["ep"], 2);
  EXPECT_EQ(o["num_stages"], 2);
  EXPECT_EQ(o["policy"], "eps");
  EXPECT_EQ(o["repetitions"], 2);
  EXPECT_EQ(o["samples_us"].size(), 2U);
  // 100 tokens on 2 ranks; two experts of 16 and a shared one of 16; 3 matrices with 2 FLOPs a weight.
  EXPECT_EQ(o["flops"], 100.0 * (2 + 1) * 16 * 32 * 3 * 2);
  for (const char* positive : {"median_us", "tflops", "limit_tflops", "gemm_tflops", "baseline_tflops", "ratio",
                               "pct_of_limit", "communication_us"}) {
    EXPECT_GT(o[positive].get<double>(), 0.0) << positive;
  }
  EXPECT_LE(o["p10_us"], o["median_us"]);
  EXPECT_LE(o["median_us"], o["p90_us"]);
  EXPECT_NEAR(o["tflops"].get<double>(), o["flops"].get<double>() / o["median_us"].get<double>() * 1e-6, 1e-9);
  EXPECT_LE(o["gemm_us"]["median"], o["median_us"]) << "a layer takes no less than its GEMMs";
  EXPECT_GT(o["worst_error"].get<double>(), 0.0) << "two computations that agree to the bit are the same one";
  EXPECT_LE(o["worst_error"].get<double>(), 1.0);
  const auto rows = o["rows_per_expert"];
  EXPECT_LE(rows["min"], rows["median"]);
  EXPECT_LE(rows["median"], rows["max"]);
}

TEST(BenchLayer, RunsEveryKindOfLayer) {
  for (const char* model : {"no_shared_experts", "bfloat16", "float16", "dense_first", "group_limited"}) {
    const std::string folder = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/golden/" + model;
    EXPECT_GT(layer_json("-m " + folder + " --tokens 9")["ratio"].get<double>(), 0.0) << model;
  }
  EXPECT_EQ(layer_json("-m " + kModel + " --tokens 1 --load-format dummy")["rows_per_expert"]["min"], 0);
  EXPECT_EQ(layer_json("-m " + kModel + " --tokens 20 --device reference")["isa"], "");
  EXPECT_EQ(layer_json("-m " + kModel + " --tokens 20 --ep 4 --eps-pipeline all --skew dirichlet:0.1")["ep"], 4);
}

TEST(BenchLayer, TextNamesArmsLimitAndRatio) {
  const std::string out = layer("-m " + kModel + " --tokens 20");
  for (const char* part : {"| epsmoe, the layer", "| oneDNN one by one", "% of limit", "ratio ", "limit ", "check "}) {
    EXPECT_NE(out.find(part), std::string::npos) << part << " in\n" << out;
  }
  std::istringstream lines(out);
  std::set<int> widths;  // of the table's lines
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('|')) widths.insert(cell_width(line));
  }
  EXPECT_EQ(widths.size(), 1U) << "columns line up:\n" << out;
}

TEST(BenchLayer, RefusesInvalidOptions) {
  EXPECT_NE(error_of("", ErrorKind::kUsage).find("no model named"), std::string::npos);
  EXPECT_NE(error_of("--preset nonsense", ErrorKind::kUsage).find("deepseek-v2-lite"), std::string::npos);
  EXPECT_NE(error_of("-m deepseek-v2-lite", ErrorKind::kUsage).find("--load-format dummy"), std::string::npos);
  EXPECT_NE(error_of("-m x --preset deepseek-v2-lite", ErrorKind::kUsage).find("--preset"), std::string::npos);
  EXPECT_NE(error_of("-m /nowhere", ErrorKind::kInput).find("no such model folder"), std::string::npos);
  EXPECT_NE(error_of("--preset deepseek-v2-lite --load-format safetensors", ErrorKind::kUsage).find("--load-format: "),
            std::string::npos);
  const std::string m = "-m " + kModel + " ";
  EXPECT_NE(error_of(m + "--tokens 0", ErrorKind::kUsage).find("--tokens"), std::string::npos);
  EXPECT_NE(error_of(m + "-r 0", ErrorKind::kUsage).find("-r"), std::string::npos);
  EXPECT_NE(error_of(m + "--ep 3", ErrorKind::kUsage).find("--ep"), std::string::npos);
  EXPECT_NE(error_of(m + "--eps-pipeline 5", ErrorKind::kUsage).find("--eps-pipeline"), std::string::npos);
  EXPECT_NE(error_of(m + "--num-experts 2", ErrorKind::kUsage).find("--num-experts"), std::string::npos);
  EXPECT_NE(error_of(m + "--load-format dummy --num-experts 1", ErrorKind::kUsage).find("2 (top-k) to 4"),
            std::string::npos);
  for (const char* skew : {"dirichlet", "dirichlet:", "dirichlet:0", "dirichlet:-1", "dirichlet:1x", "dirichlet:nan"}) {
    EXPECT_NE(error_of(m + "--skew " + skew, ErrorKind::kUsage).find("--skew"), std::string::npos) << skew;
  }
  const std::string dense = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/golden/all_dense";
  EXPECT_NE(error_of("-m " + dense, ErrorKind::kInput).find("no MoE layer"), std::string::npos);
  EXPECT_THROW(layer(m + "--max-model-len 5"), test::ParseError) << "a flag that would mean nothing";
}

TEST(BenchLayer, AnInterruptReturnsWhatIsDone) {
  measure::LayerBenchOptions options;
  options.engine.model = kModel;
  options.engine.threads = 1;
  options.tokens = 5;
  options.limit_size = 64;
  int asked = 0;
  const auto result = measure::run_layer_bench(
      options, [](std::string_view) {}, [&] { return ++asked <= 3; });
  EXPECT_EQ(result.us.size(), 2U) << "the first of three is the warm-up";
}

TEST(BenchLayer, AStopWithinARepetitionReturnsTheOnesBefore) {
  std::atomic<bool> stopped{false};
  measure::LayerBenchOptions options;
  options.engine.model = kModel;
  options.engine.threads = 1;
  options.engine.stop = StopToken(stopped);
  options.tokens = 5;
  options.limit_size = 64;
  int asked = 0;
  const auto keep_going = [&] {
    stopped = ++asked > 2;
    return true;
  };
  const auto result = measure::run_layer_bench(
      options, [](std::string_view) {}, keep_going);
  EXPECT_EQ(result.us.size(), 1U) << "the first of three is the warm-up, the third was stopped";
}

// A layer of `hidden` x `inner` on both arms.
measure::OutputCheck compare_arms(int64_t hidden, int64_t inner, const std::vector<moe::Routing>& theirs,
                                  const std::vector<moe::Routing>& ours) {
  engine::ModelFolder folder = engine::open_model_folder(kModel, true);
  folder.spec.hidden = hidden;
  folder.spec.moe.inner = inner;
  folder.spec.moe.shared_inner = inner;
  const auto source = model::make_dummy_source();
  auto ops = engine::make_op_sets("cpu", "f32", 1, 1);
  const model::LayerWeights layer = model::load_moe_layer(folder.spec, *folder.family, *source, *ops.front(), 0);
  measure::LayerBaseline baseline(folder.spec, *folder.family, 0, *source, DType::kF32, 1);
  const int64_t tokens = theirs.front().num_tokens;
  std::vector<float> x(static_cast<size_t>(tokens * hidden));
  std::mt19937 rng(2);
  std::generate(x.begin(), x.end(), [&] { return std::normal_distribution<float>()(rng); });
  std::vector<float> out(x.size());
  const TensorView x_view(x.data(), DType::kF32, {tokens, hidden});
  baseline.prepare(x_view, theirs);
  const plan::MoeShape shape = arch::moe_shape(folder.spec, DType::kBF16, DType::kF32);
  const plan::MoeProblem problem = plan::make_problem(shape, moe::place_experts(4, 1), ours);
  const plan::Plan plan =
      plan::Planner(plan::builtin_cpu_profile(1), shape).plan(problem, {plan::PipelineOption::Mode::kOff, 1});
  measure::LayerRanks ranks(layer, problem.placement, std::move(ops),
                            engine::make_communicators(1, std::chrono::milliseconds(1000)));
  ranks.run(plan, ours, x_view, {out.data(), DType::kF32, {tokens, hidden}});
  return baseline.check({out.data(), DType::kF32, {tokens, hidden}});
}

TEST(BenchBaseline, DistinguishesWrongLayersFromRoundingAtAnySize) {
  for (const int64_t size : {8, 64, 512}) {
    const auto right = sim::random_routing({.tokens_per_rank = 7, .num_experts = 4, .top_k = 2, .seed = 3});
    const measure::OutputCheck same = compare_arms(size, size / 2, right, right);
    EXPECT_TRUE(same.ok()) << size << ": " << same.worst;
    // One weight of one token is 1 % too large.
    auto wrong = right;
    wrong[0].weight[5] *= 1.01F;
    const measure::OutputCheck off = compare_arms(size, size / 2, right, wrong);
    EXPECT_FALSE(off.ok()) << size << ": " << off.worst;
    EXPECT_EQ(off.token, 2) << "the token of the sixth row";
  }
}

TEST(BenchBaseline, NotANumberIsWrong) {
  const engine::ModelFolder folder = engine::open_model_folder(kModel, true);
  const auto source = model::make_dummy_source();
  measure::LayerBaseline baseline(folder.spec, *folder.family, 0, *source, DType::kF32, 1);
  const std::vector<float> x(32, 0.0F);
  baseline.prepare({x.data(), DType::kF32, {1, 32}},
                   sim::random_routing({.tokens_per_rank = 1, .num_experts = 4, .top_k = 2, .seed = 3}));
  std::vector<float> y(32, 0.0F);
  EXPECT_TRUE(baseline.check({y.data(), DType::kF32, {1, 32}}).ok()) << "nothing in, nothing out";
  y[7] = std::nanf("");
  const measure::OutputCheck check = baseline.check({y.data(), DType::kF32, {1, 32}});
  EXPECT_FALSE(check.ok());
  EXPECT_EQ(check.column, 7);
}

}  // namespace
}  // namespace eps::cli
