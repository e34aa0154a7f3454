// `bench gemm`: the reports of its loads and rules, and refused options.
#include "measure/gemm_bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "support/run_command.h"

namespace eps::cli {
namespace {

const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/golden/plain";  // 4 experts, top-2

// Runs the command and returns what it prints.
std::string gemm(const std::string& arguments) {
  std::string line = "bench gemm " + arguments;
  for (const std::string flag : {"--threads 1", "--limit-size 64", "-r 2"}) {
    if (line.find(flag.substr(0, flag.find(' ') + 1)) == std::string::npos) line += " " + flag;
  }
  return test::run_command(line);
}

std::vector<nlohmann::json> gemm_json(const std::string& arguments) {
  std::istringstream lines(gemm(arguments + " --json"));
  std::vector<nlohmann::json> out;
  for (std::string line; std::getline(lines, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

std::string error_of(const std::string& arguments, ErrorKind kind) {
  try {
    gemm(arguments);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return e.what();
  }
  return "no error";
}

TEST(BenchGemm, ReportsEveryLoadThenASummary) {
  for (const char* device : {"cpu", "reference"}) {
    const auto lines =
        gemm_json("-m " + kModel + " --tokens 33 --loads 5 --seed 7 --skew dirichlet:0.2 --device " + device);
    ASSERT_EQ(lines.size(), 6U);
    double mean = 0;
    double most = 0;
    for (size_t i = 0; i < 5; ++i) {
      const auto& load = lines[i];
      EXPECT_EQ(load["bench"], "gemm");
      EXPECT_EQ(load["load"], i);
      EXPECT_EQ(load["seed"], 7 + i);
      EXPECT_EQ(load["skew"], i % 2 == 0 ? "uniform" : "dirichlet:0.2");
      EXPECT_LE(load["rows_per_expert"]["min"], load["rows_per_expert"]["max"]);
      const auto rows = load["rows"].get<std::vector<int64_t>>();
      EXPECT_EQ(std::ranges::max(rows), load["rows_per_expert"]["max"]);
      double best = 0;
      double chosen = 0;
      double predicted = 0;
      for (const char* name : {"gate_up", "down"}) {
        const auto& p = load[name];
        const double dense = p["measured_us"]["dense"];
        const double grouped = p["measured_us"]["grouped"];
        EXPECT_GT(std::min(dense, grouped), 0.0);
        EXPECT_EQ(p["best"], dense <= grouped ? "dense" : "grouped");
        const auto& predicted_us = p["promised_us"];  // check_words: allow (a key of the file format)
        EXPECT_EQ(p["chosen"], predicted_us["dense"] <= predicted_us["grouped"] ? "dense" : "grouped");
        best += std::min(dense, grouped);
        chosen += p["measured_us"][p["chosen"].get<std::string>()].get<double>();
        predicted += predicted_us[p["chosen"].get<std::string>()].get<double>();
      }
      EXPECT_NEAR(load["best_us"].get<double>(), best, 1e-6 * best);
      EXPECT_NEAR(load["chosen_us"].get<double>(), chosen, 1e-6 * chosen);
      EXPECT_NEAR(load["promised_us"].get<double>(), predicted, 1e-6 * predicted);  // check_words: allow
      const double regret = load["regret_pct"]["profile"];
      EXPECT_NEAR(regret, 100 * (chosen / best - 1), 1e-6);
      mean += regret / 5;
      most = std::max(most, regret);
      for (const char* rule : {"profile", "dense", "grouped", "threshold"}) {
        EXPECT_GE(load["regret_pct"][rule].get<double>(), 0.0) << rule;
      }
      EXPECT_GT(load["tflops"].get<double>(), 0.0);
      EXPECT_GT(load["pct_of_limit"].get<double>(), 0.0);
    }
    const auto& sum = lines.back();
    EXPECT_EQ(sum["bench"], "gemm_summary");
    EXPECT_EQ(sum["loads"], 5);
    EXPECT_NEAR(sum["rules"]["profile"]["mean_regret_pct"].get<double>(), mean, 1e-6);
    EXPECT_NEAR(sum["rules"]["profile"]["max_regret_pct"].get<double>(), most, 1e-6);
    for (const auto& rule : sum["rules"]) {
      EXPECT_EQ(rule["chosen"]["dense"].get<int>() + rule["chosen"]["grouped"].get<int>(), 10);
    }
    EXPECT_EQ(sum["rules"]["dense"]["chosen"]["dense"], 10);
    EXPECT_EQ(sum["rules"]["threshold"]["chosen"]["grouped"], 10) << "17 rows an expert are fewer than 2048";
    EXPECT_EQ(sum["best"]["dense"].get<int>() + sum["best"]["grouped"].get<int>(), 10);
    EXPECT_GT(sum["measured_by_promised"]["median"].get<double>(), 0.0);  // check_words: allow
    EXPECT_GT(sum["limit_tflops"].get<double>(), 0.0);
  }
}

TEST(BenchGemm, RunsEdges) {
  EXPECT_EQ(gemm_json("-m " + kModel + " --tokens 1 --loads 1 -r 1").front()["experts_with_rows"], 2);
  EXPECT_EQ(gemm_json("-m " + kModel + " --load-format dummy --num-experts 2 --tokens 3 --loads 2").size(), 3U);
  const nlohmann::json equal = gemm_json("-m " + kModel + " --rows 5 --loads 1 -r 1").front();
  EXPECT_EQ(equal["rows"].get<std::vector<int64_t>>(), (std::vector<int64_t>{5, 5, 5, 5}));
  EXPECT_EQ(equal["skew"], "equal");
  const std::string limited = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/golden/group_limited";
  EXPECT_EQ(gemm_json("-m " + limited + " --tokens 9 --loads 2 --skew uniform")[1]["skew"], "uniform");
}

TEST(BenchGemm, TextShowsLoadsAndRules) {
  const std::string out = gemm("-m " + kModel + " --tokens 20 --loads 3");
  for (const char* part : {"|    0 | uniform", "|    1 | dirichlet:0.3", "|    2 | uniform", "the profile's choice",
                           "always dense", "always grouped", "below 2048 rows", "best  ", "ratio  ", "limit "}) {
    EXPECT_NE(out.find(part), std::string::npos) << part << " in\n" << out;
  }
}

TEST(BenchGemm, RulesAreJudgedByTheFasterKernelOfEachProjection) {
  measure::GemmLoad load;
  load.rows = {4096, 0};
  load.gate_up = {.predicted = {}, .measured = {10, 20}, .chosen = moe::GemmKind::kGrouped};
  load.down = {.predicted = {}, .measured = {40, 30}, .chosen = moe::GemmKind::kGrouped};
  EXPECT_DOUBLE_EQ(load.best_us(), 40);
  EXPECT_DOUBLE_EQ(load.regret(measure::KernelRule::kProfile), 0.25);
  EXPECT_DOUBLE_EQ(load.regret(measure::KernelRule::kDense), 0.25);
  EXPECT_EQ(load.kernel(measure::KernelRule::kThreshold, load.gate_up), moe::GemmKind::kDense)
      << "2048 rows on average";
  measure::GemmLoad other = load;
  other.rows = {4095, 0};
  EXPECT_EQ(other.kernel(measure::KernelRule::kThreshold, other.gate_up), moe::GemmKind::kGrouped);
  other.gate_up.chosen = moe::GemmKind::kDense;
  const measure::RuleSummary both = measure::summarize_rule({load, other}, measure::KernelRule::kProfile);
  EXPECT_DOUBLE_EQ(both.mean_regret, 0.125);
  EXPECT_DOUBLE_EQ(both.max_regret, 0.25);
  EXPECT_EQ(both.num_dense, 1);
  EXPECT_EQ(both.num_grouped, 3);
}

TEST(BenchGemm, RefusesInvalidOptions) {
  EXPECT_NE(error_of("", ErrorKind::kUsage).find("no model named"), std::string::npos);
  EXPECT_NE(error_of("--preset nonsense", ErrorKind::kUsage).find("deepseek-v2-lite"), std::string::npos);
  EXPECT_NE(error_of("-m /nowhere", ErrorKind::kInput).find("no such model folder"), std::string::npos);
  const std::string m = "-m " + kModel + " ";
  for (const char* wrong : {"--tokens 0", "--loads 0", "-r 0", "--limit-size -1", "--num-experts 2",
                            "--skew dirichlet:0", "--device abacus", "--profile nonsense"}) {
    const std::string flag = std::string(wrong).substr(0, std::string(wrong).find(' '));
    EXPECT_NE(error_of(m + wrong, ErrorKind::kUsage).find(flag), std::string::npos) << wrong;
  }
  EXPECT_THROW(gemm(m + "--threads -1"), test::ParseError);
  EXPECT_NE(error_of("--preset deepseek-v2-lite --load-format safetensors", ErrorKind::kUsage)
                .find("--load-format: --preset has no weights to read"),
            std::string::npos);
  EXPECT_THROW(gemm(m + "--ep 2"), test::ParseError) << "a flag that would mean nothing";
}

TEST(BenchGemm, AnInterruptReturnsTheLoadsThatAreDone) {
  measure::GemmBenchOptions options;
  options.engine.model = kModel;
  options.engine.threads = 1;
  options.tokens = 5;
  options.repetitions = 2;
  options.limit_size = 64;
  int asked = 0;
  const auto result = measure::run_gemm_bench(
      options, [](std::string_view) {}, [&] { return ++asked <= 5; });
  EXPECT_EQ(result.loads.size(), 1U) << "three repetitions, the first a warm-up; then two of the second load";
}

TEST(BenchGemm, AStopWithinALoadReturnsTheOnesBefore) {
  std::atomic<bool> stopped{false};
  measure::GemmBenchOptions options;
  options.engine.model = kModel;
  options.engine.threads = 1;
  options.engine.stop = StopToken(stopped);
  options.tokens = 5;
  options.repetitions = 2;
  options.limit_size = 64;
  int asked = 0;
  const auto keep_going = [&] {
    stopped = ++asked > 4;
    return true;
  };
  const auto result = measure::run_gemm_bench(
      options, [](std::string_view) {}, keep_going);
  EXPECT_EQ(result.loads.size(), 1U) << "the second load was stopped in its second repetition";
}

}  // namespace
}  // namespace eps::cli
