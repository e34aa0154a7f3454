// --strategy through the command line: every command that opens an engine, what it reports, and what it refuses.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "support/run_command.h"

namespace eps::cli {
namespace {

using nlohmann::json;

const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe";
const std::string kGolden = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/golden/";
const std::vector<std::string> kStrategies = {"dp+ep", "tp+ep", "tp+tp"};

std::string refusal(const std::string& line) {
  try {
    test::run_command(line);
  } catch (const Error& e) {
    EXPECT_EQ(to_string(e.kind()), to_string(ErrorKind::kUsage)) << line;
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  return "not refused";
}

void expect_refused(const std::string& line, const std::string& part) {
  const std::string text = refusal(line);
  EXPECT_NE(text.find(part), std::string::npos) << line << "\n" << text;
}

json generate(const std::string& flags) {
  return json::parse(test::run_command("generate --no-tune --json --temperature 0 --max-tokens 12 --threads 1 -m " +
                                       kModel + " -p \"It is a truth universally\" " + flags));
}

TEST(StrategyFlag, GeneratesTheSameText) {
  const json one = generate("--ep 1 --strategy tp+tp");
  EXPECT_EQ(one["strategy"], "dp+ep") << "one rank has everything";
  for (const std::string& strategy : kStrategies) {
    for (const char* ranks : {"2", "4"}) {
      const std::string flags = std::string("--ep ") + ranks + " --strategy " + strategy;
      const json out = generate(flags);
      EXPECT_EQ(out["strategy"], strategy);
      EXPECT_EQ(out["token_ids"], one["token_ids"]) << flags;
      EXPECT_EQ(generate(flags + " --max-num-batched-tokens 2")["token_ids"], one["token_ids"])
          << flags << ", a prompt in pieces";
    }
  }
  const std::string chosen = generate("--ep 2 --strategy auto")["strategy"];
  EXPECT_EQ(std::ranges::count(kStrategies, chosen), 1) << chosen;
  // Penalties are applied on the host, on the rank that the sequence belongs to.
  EXPECT_EQ(generate("--ep 2 --strategy tp+tp --repetition-penalty 1.3")["token_ids"],
            generate("--ep 1 --repetition-penalty 1.3")["token_ids"]);
}

TEST(StrategyFlag, ScoresTextsTheSame) {
  const auto score = [](const std::string& flags) {
    return json::parse(test::run_command("perplexity --json --threads 1 --window 64 --max-num-batched-tokens 128 -m " +
                                         kModel + " -f " + kModel + "/README.md " + flags));
  };
  const json one = score("--ep 1");
  for (const std::string& strategy : kStrategies) {
    const json out = score("--ep 2 --strategy " + strategy);
    EXPECT_EQ(out["num_tokens"], one["num_tokens"]);
    EXPECT_NEAR(out["nll"].get<double>(), one["nll"].get<double>(), 1e-5 * one["nll"].get<double>()) << strategy;
    EXPECT_EQ(out["strategy"], strategy);
    if (strategy != "dp+ep") {
      EXPECT_EQ(score("--ep 2 --strategy " + strategy)["nll"], out["nll"]) << "again";
    }
  }
}

TEST(StrategyFlag, BenchmarksRunAndReportIt) {
  for (const std::string& strategy : kStrategies) {
    const std::string flags =
        " --load-format dummy --threads 1 --ep 2 --strategy " + strategy + " -m " + kGolden + "mixtral ";
    const json latency = json::parse(test::run_command(
        "bench latency --batch-size 3 --input-len 9 --output-len 3 --num-iters 1 --num-iters-warmup 0 "
        "--limit-tflops 1 --json" +
        flags));
    EXPECT_EQ(latency["strategy"], strategy);
    const json throughput = json::parse(test::run_command(
        "bench throughput --num-prompts 5 --input-len 7 --output-len 4 --max-num-seqs 3 --json" + flags));
    EXPECT_EQ(throughput["strategy"], strategy);
    const json sweep = json::parse(test::run_command("bench sweep -p 8 -n 3 -r 1 -o json" + flags));
    EXPECT_EQ(sweep[0]["strategy"], strategy);
    const std::string table = test::run_command("bench sweep -p 8 -n 0 -r 1" + flags);
    EXPECT_EQ(table.find("strategy") != std::string::npos, strategy != "dp+ep") << table;
    EXPECT_NE(test::run_command("bench latency --batch-size 1 --input-len 4 --output-len 0 --num-iters 1 "
                                "--num-iters-warmup 0 --limit-tflops 1" +
                                flags)
                  .find(strategy),
              std::string::npos);
  }
}

TEST(StrategyFlag, RefusalsNameTheReason) {
  const std::string generate = "generate --no-tune -p x -m " + kModel + " ";
  expect_refused(generate + "--strategy pp --ep 2", "wanted auto, dp+ep, tp+ep or tp+tp");
  expect_refused(generate + "--strategy pp", "wanted auto, dp+ep, tp+ep or tp+tp");
  expect_refused(generate + "--strategy tp+ep --ep 16", "--ep: tp+ep splits the 8 attention heads of the model evenly");
  expect_refused(generate + "--strategy tp+tp --ep 5", "wanted a divisor of 8");
  expect_refused(generate + "--strategy tp+ep --ep 5", "wanted a divisor of 8");
  expect_refused(generate + "--strategy tp+tp --ep 2 --eps-pipeline 2", "--strategy tp+tp every rank has a part");
  expect_refused(generate + "--strategy tp+ep --ep 2 --eps-pipeline 99", "more stages than experts");
  expect_refused(generate + "--strategy tp+ep --ep 2 --device cuda",
                 "--strategy: ranks on GPUs cannot split attention or experts yet: got tp+ep, wanted dp+ep");
  expect_refused("bench latency --load-format dummy --strategy tp+ep --ep 2 -m " + kGolden + "no_shared_experts",
                 "the 5 experts evenly");
  expect_refused("bench latency --load-format dummy --strategy tp+ep --ep 4 -m " + kGolden + "olmoe_shared_heads",
                 "the 2 key-value heads of the model evenly");
  for (const char* bench : {"layer", "overlap", "gemm", "a2a"}) {
    EXPECT_THROW(test::run_command(std::string("bench ") + bench + " --strategy tp+ep"), test::ParseError) << bench;
  }
}

TEST(StrategyFlag, InspectShowsTheMemoryOfEachStrategy) {
  const json shown = json::parse(test::run_command("inspect --json -m qwen3-30b-a3b"));
  for (const json& row : shown["memory_per_rank"]) {
    const json& strategies = row["strategies"];
    const int ep = row["ep"];
    EXPECT_EQ(strategies["dp+ep"]["weight_bytes"], row["weight_bytes"]);
    EXPECT_EQ(strategies["dp+ep"]["kv_cache_bytes_per_token"], shown["kv_cache_bytes_per_token"]);
    if (ep > 32) {  // heads
      EXPECT_FALSE(strategies.contains("tp+ep"));
      continue;
    }
    const double split = strategies["tp+ep"]["weight_bytes"];
    EXPECT_LE(split, row["weight_bytes"].get<double>());
    if (ep > 1) {
      EXPECT_LT(split, row["weight_bytes"].get<double>());
    }
    EXPECT_EQ(strategies["tp+ep"]["kv_cache_bytes_per_token"].get<int>() * std::min(ep, 4),  // key-value heads
              shown["kv_cache_bytes_per_token"]);
    // Without shared experts, a part of every expert is as large as an equal share of whole ones.
    EXPECT_EQ(strategies["tp+tp"]["weight_bytes"], split);
  }
  EXPECT_NE(test::run_command("inspect -m arctic").find("tp+tp"), std::string::npos);
}

}  // namespace
}  // namespace eps::cli
