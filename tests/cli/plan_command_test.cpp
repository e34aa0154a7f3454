// `plan`: its JSON, text and files, refused options, and the effect of flags.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "io/file.h"
#include "report/plan_json.h"
#include "support/run_command.h"

namespace eps::cli {
namespace {

std::string plan(const std::string& arguments) { return test::run_command("plan " + arguments); }

const std::string kSmall = "-m deepseek-v2-lite --ep 4 --profile h800 --tokens 1024 ";

io::Json json_of(const std::string& arguments) { return io::parse_json(plan("--json " + arguments), "output"); }

void expect_refused(const std::string& arguments, const std::string& where, const std::string& fragment) {
  try {
    plan(arguments);
    ADD_FAILURE() << arguments;
  } catch (const Error& e) {
    EXPECT_EQ(exit_code(e.kind()), 2) << e.what();
    EXPECT_EQ(e.where(), where) << e.what();
    EXPECT_NE(e.message().find(fragment), std::string::npos) << e.what();
  } catch (const test::ParseError& e) {
    EXPECT_NE(std::string(e.what()).find(fragment), std::string::npos) << e.what();
  }
}

TEST(PlanCommand, JsonHasTheWholePlanAndReadsBack) {
  const std::string text = plan("--json -m deepseek-v2 --ep 8 --profile h800 --tokens 8192");
  EXPECT_EQ(std::ranges::count(text, '\n'), 1);
  const io::Json json = io::parse_json(text, "output");
  for (const char* key : {"policy", "strategy", "num_stages", "makespan_us", "bound_us", "candidates", "stages",
                          "bytes_dispatch", "bytes_combine", "ops", "reason", "wire", "sms", "paper", "overlap"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["about"]["model"], "deepseek-v2");
  EXPECT_EQ(json["about"]["tokens_per_rank"], 8192);
  EXPECT_EQ(json["about"]["strategies"].size(), 3U);
  EXPECT_GE(json["makespan_us"].get<double>(), json["bound_us"].get<double>());
  EXPECT_GT(json["candidates"].size(), 2U);
  int num_chosen = 0;
  for (const io::Json& candidate : json["candidates"]) {
    for (const char* key : {"policy", "strategy", "num_stages", "makespan_us", "bound_us", "reason", "wire", "sms"}) {
      EXPECT_TRUE(candidate.contains(key)) << key;
    }
    EXPECT_FALSE(candidate["reason"].get<std::string>().empty());
    if (candidate["verdict"] != "chosen") continue;
    ++num_chosen;
    EXPECT_EQ(candidate["policy"], json["policy"]);
    EXPECT_EQ(candidate["num_stages"], json["num_stages"]);
  }
  EXPECT_EQ(num_chosen, 1);
  for (const io::Json& stage : json["stages"]) {
    EXPECT_EQ(stage["rows"].size(), 8U);
    for (const char* key : {"experts", "part", "gate_up_kernel", "down_kernel"}) EXPECT_TRUE(stage.contains(key));
  }
  const plan::Plan read = report::parse_plan(text, "output");
  EXPECT_EQ(read.predicted.size(), read.ops.size());
  EXPECT_EQ(plan("--json -m deepseek-v2 --ep 8 --profile h800 --tokens 8192"), text);  // same input, same plan
}

TEST(PlanCommand, TextExplainsTheChoice) {
  const std::string text = plan(kSmall + "--skew dirichlet:0.3");
  for (const char* word :
       {"deepseek-v2-lite, one MoE layer: 64 experts of 2048 x 1408, top-6", "4 ranks x 1024 tokens", "profile h800",
        "because", "% of bound", "why not", "serial", "chosen", "gate_up", "rows of a rank", "ε0", "N* =", "dispatch",
        "µs", "idle", "of it hidden", "perfect overlap"}) {
    EXPECT_NE(text.find(word), std::string::npos) << word << "\n" << text;
  }
  const auto lines = [](const std::string& t) { return std::ranges::count(t, '\n'); };
  EXPECT_GT(lines(plan(kSmall + "--all")), lines(plan(kSmall)));
  // One expert a stage: 40 stages, of which 24 are listed.
  const std::string many =
      plan("-m deepseek-v2 --ep 4 --profile h800 --tokens 512 --eps-pipeline all --strategy dp+ep");
  EXPECT_NE(many.find("… 40 stages in all"), std::string::npos) << many;
}

TEST(PlanCommand, FlagsFixTheirOption) {
  const auto field = [](const std::string& flags, const char* key) { return json_of(kSmall + flags)[key]; };
  EXPECT_EQ(field("--policy serial", "policy"), "serial");
  EXPECT_EQ(field("--policy serial", "num_stages"), 1);
  EXPECT_EQ(field("--policy eps --strategy dp+ep", "policy"), "eps");
  EXPECT_EQ(field("--eps-pipeline 4 --strategy dp+ep", "num_stages"), 4);
  EXPECT_EQ(field("--policy microbatch --strategy dp+ep", "policy"), "microbatch");
  EXPECT_EQ(field("--policy tp", "strategy"), "tp+tp");
  EXPECT_EQ(field("--policy tp", "policy"), "tp");
  EXPECT_EQ(field("--strategy tp+tp", "policy"), "tp");
  EXPECT_EQ(field("--strategy tp+ep", "strategy"), "tp+ep");
  EXPECT_EQ(field("--wire fp8 --strategy dp+ep", "wire")["dispatch"], "fp8");
  EXPECT_EQ(field("--wire fp8 --strategy dp+ep", "wire")["combine"], "bf16");
  // Half the bytes, plus the scales.
  EXPECT_LT(field("--wire fp8 --strategy dp+ep", "bytes_dispatch").get<double>(),
            0.6 * field("--strategy dp+ep", "bytes_dispatch").get<double>());
  EXPECT_GT(field("--link 1GB/s,10us", "makespan_us").get<double>(), 4 * field("", "makespan_us").get<double>());
  EXPECT_LT(field("--weight-dtype fp8", "bound_us").get<double>(), field("", "bound_us").get<double>());
  EXPECT_NE(field("--seed 2 --skew dirichlet:0.3", "stages"), field("--seed 3 --skew dirichlet:0.3", "stages"));
  EXPECT_EQ(json_of("-m deepseek-v2-lite --ep 1 --profile h800 --tokens 64")["bytes_dispatch"], 0);
}

TEST(PlanCommand, OneRankPlansOneStageUnlessTheNumberIsFixed) {
  for (const char* profile : {"cpu", "h800", "h200", "cuda-h100", "cuda-h200"}) {
    const std::string one = fmt::format("-m mixtral-8x7b --ep 1 --tokens 4096 --strategy dp+ep --profile {} ", profile);
    for (const char* flags : {"", "--policy eps"}) {
      const io::Json json = json_of(one + flags);
      EXPECT_EQ(json["num_stages"], 1) << profile << " " << flags;
      EXPECT_EQ(json["stages"].size(), 1U) << profile << " " << flags;
    }
    EXPECT_EQ(json_of(one + "--eps-pipeline 4")["num_stages"], 4) << profile;
  }
}

TEST(PlanCommand, FoldersArePlannedLikePresets) {
  const std::string folder = std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe";
  const io::Json json = json_of("-m " + folder + " --ep 2 --profile h800 --tokens 256");
  EXPECT_EQ(json["about"]["model"], "austen-moe");
}

TEST(PlanCommand, WritesAPictureAndATrace) {
  const auto dir = std::filesystem::temp_directory_path() / ("epsmoe_plan_" + std::to_string(getpid()));
  std::filesystem::create_directories(dir);
  const std::string svg = (dir / "plan.svg").string();
  const std::string trace = (dir / "trace.json").string();
  plan(kSmall + "--svg " + svg + " --trace " + trace);
  EXPECT_NE(io::read_file(svg, 1 << 24).find("deepseek-v2-lite, ep 4, 1024 tokens a rank, h800"), std::string::npos);
  const io::Json events = io::read_json_file(trace)["traceEvents"];
  const auto is_named = [](const std::string& name) {
    return [name](const io::Json& e) { return e["args"].value("name", "") == name; };
  };
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_TRUE(std::ranges::any_of(events, is_named(fmt::format("rank {} predicted", rank)))) << rank;
  }
  EXPECT_TRUE(std::ranges::any_of(events, [](const io::Json& e) { return e["name"] == "gate_up"; }));
  std::filesystem::remove_all(dir);
}

TEST(PlanCommand, RefusalsNameTheFlagAndValidValues) {
  const std::string rest = "--ep 8 --profile h800 --tokens 64";
  expect_refused("-m deepseek-v9 " + rest, "--model", "deepseek-v2-lite");
  expect_refused("-m deepseek-v2 --ep 8 --profile h900 --tokens 64", "--profile", "h800");
  for (const char* tokens : {"0", "-5", "2147483648", "99999999999"}) {
    expect_refused("-m deepseek-v2 --ep 8 --profile h800 --tokens " + std::string(tokens), "--tokens", tokens);
  }
  expect_refused("-m deepseek-v2 --ep 8 --profile h800 --tokens many", "", "--tokens");
  expect_refused("-m deepseek-v2 --ep 7 --profile h800 --tokens 64 --strategy dp+ep", "--ep", "7");
  expect_refused("-m deepseek-v2 --ep 7 --profile h800 --tokens 64", "--ep", "7");
  expect_refused("-m deepseek-v2 --ep 0 --profile h800 --tokens 64", "--ep", "0");
  expect_refused("-m dbrx --ep 16 --profile h800 --tokens 64 --eps-pipeline 2 --strategy dp+ep", "--eps-pipeline", "2");
  expect_refused("-m dbrx --ep 8 --profile h800 --tokens 64 --eps-pipeline 99", "--eps-pipeline",
                 "more stages than experts on a rank: got 99, wanted at most 2 (16 experts over 8 ranks)");
  expect_refused("-m deepseek-v2 --strategy pp " + rest, "--strategy", "dp+ep");
  expect_refused("-m deepseek-v2 --policy fast " + rest, "--policy", "microbatch");
  expect_refused("-m deepseek-v2 --policy tp --strategy dp+ep " + rest, "--strategy", "tp+tp");
  expect_refused("-m deepseek-v2 --policy eps --strategy tp+tp " + rest, "--strategy", "tp+ep");
  expect_refused("-m deepseek-v2 --eps-pipeline 4 --strategy tp+tp " + rest, "--strategy", "tp+ep");
  expect_refused("-m deepseek-v2 --policy serial --eps-pipeline 4 " + rest, "--eps-pipeline", "auto or off");
  expect_refused("-m deepseek-v2 --policy eps --eps-pipeline off " + rest, "--eps-pipeline", "number");
  expect_refused("-m deepseek-v2 --wire int4 " + rest, "--wire", "fp8");
  expect_refused("-m deepseek-v2 --weight-dtype int4 " + rest, "--weight-dtype", "fp8");
  expect_refused("-m deepseek-v2 --link slow " + rest, "--link", "1GB/s,20us");
  expect_refused("-m deepseek-v2 --skew odd " + rest, "--skew", "dirichlet");
  expect_refused("-m deepseek-v2 --svg /nowhere/plan.svg " + rest, "--svg", "/nowhere/plan.svg");
  expect_refused("-m deepseek-v2 --profile " EPSMOE_SOURCE_DIR "/README.md --ep 8 --tokens 64",
                 EPSMOE_SOURCE_DIR "/README.md", "JSON");
  expect_refused("-m deepseek-v2 --ep 8 --tokens 64", "", "--profile");
}

}  // namespace
}  // namespace eps::cli
