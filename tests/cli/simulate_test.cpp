// `simulate`: its rows, refused options and its help.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "base/error.h"
#include "cli/table.h"
#include "io/json.h"
#include "support/run_command.h"

namespace eps::cli {
namespace {

std::string simulate(const std::string& arguments) { return test::run_command("simulate " + arguments); }

std::vector<io::Json> rows_of(const std::string& arguments) {
  std::istringstream lines(simulate(arguments + " --json"));
  std::vector<io::Json> out;
  for (std::string line; std::getline(lines, line);) out.push_back(io::parse_json(line, "output"));
  return out;
}

void expect_refused(const std::string& arguments, const std::string& where, const std::string& fragment) {
  try {
    simulate(arguments);
    ADD_FAILURE() << arguments;
  } catch (const Error& e) {
    EXPECT_EQ(exit_code(e.kind()), 2) << e.what();
    EXPECT_EQ(e.where(), where) << e.what();
    EXPECT_NE(e.message().find(fragment), std::string::npos) << e.what();
  }
}

TEST(Simulate, ShowsEveryStrategyAndPolicyAgainstTheFirstRow) {
  const auto rows = rows_of("-m deepseek-v2 --weight-dtype fp8 --batch 8 --seq-len 1024");
  ASSERT_EQ(rows.size(), 7U);
  EXPECT_EQ(rows[0]["strategy"], "tp+tp");
  EXPECT_EQ(rows[0]["policy"], "tp");
  EXPECT_EQ(rows[0]["speedup"], 1.0);
  int fastest = 0;
  for (const io::Json& row : rows) {
    EXPECT_GT(row["tokens_per_s"], 0);
    EXPECT_NEAR(row["tokens_per_s"].get<double>() * row["ttft_ms"].get<double>(), 8192e3, 1);
    double sum = 0;
    for (const auto& [part, us] : row["parts_us"].items()) sum += us.get<double>();
    EXPECT_NEAR(sum * 1e-3, row["ttft_ms"].get<double>(), 1e-6);
    EXPECT_EQ(row["loads"].size(), 4U);
    fastest += row["fastest"] ? 1 : 0;
  }
  EXPECT_EQ(fastest, 1);
}

TEST(Simulate, PrintsATableAndTheChoice) {
  const std::string text = simulate("-m mixtral-8x7b --ep 4 --batch 8 --seq-len 512 --wire auto --skew dirichlet:0.5");
  for (const char* part : {"mixtral-8x7b: 46.7 B parameters", "| tp+tp", "| dp+ep", "microbatch", "TTFT ms",
                           "fastest that fits", "tp+ep for grouped-query"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  EXPECT_EQ(simulate("-m dbrx --batch 8 --seq-len 512"), simulate("-m dbrx --batch 8 --seq-len 512"));
}

// Times of days and rates of millions have more digits than usual.
TEST(Simulate, ColumnsAreAsWideAsTheirCells) {
  std::istringstream lines(simulate("-m deepseek-v2-lite --ep 2 --batch 512 --seq-len 4096 --profile cpu"));
  std::set<int> widths;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('|')) widths.insert(cell_width(line));
  }
  EXPECT_EQ(widths.size(), 1U) << lines.str();
}

TEST(Simulate, AutoShowsTheChosenStrategyBesideTheBaseline) {
  const auto rows = rows_of("-m qwen3-30b-a3b --batch 8 --seq-len 2048 --strategy auto");
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[0]["policy"], "tp");
  EXPECT_EQ(rows[1]["strategy"], rows[3]["strategy"]);
  EXPECT_FALSE(rows[0]["fastest"].get<bool>());
  EXPECT_NE(simulate("-m qwen3-30b-a3b --batch 8 --strategy auto").find("the paper's rule chooses tp+ep"),
            std::string::npos);
  EXPECT_EQ(rows_of("-m qwen3-30b-a3b --batch 8 --seq-len 64 --strategy tp+ep").size(), 3U);
}

TEST(Simulate, ReadsAModelFolder) {
  const auto rows = rows_of("-m " EPSMOE_SOURCE_DIR "/models/austen-moe --ep 2 --batch 2 --seq-len 64");
  EXPECT_EQ(rows.size(), 7U);
}

TEST(Simulate, StrategiesThatCannotRunAreRowsWithAReason) {
  const auto rows = rows_of("-m mixtral-8x7b --ep 8 --batch 4 --seq-len 512");
  ASSERT_EQ(rows.size(), 7U);
  EXPECT_FALSE(rows[3].contains("why_not"));
  EXPECT_NE(rows[4]["why_not"].get<std::string>().find("a multiple of --ep 8"), std::string::npos);
  EXPECT_NE(simulate("-m mixtral-8x7b --batch 4 --seq-len 512").find("dp+ep cannot run: --batch"), std::string::npos);
}

TEST(Simulate, RefusalsNameTheFlag) {
  expect_refused("-m gpt-2", "--model", "mixtral-8x7b");
  expect_refused("-m dbrx --strategy ep", "--strategy", "dp+ep, tp+ep or tp+tp");
  expect_refused("-m dbrx --wire fp4", "--wire", "bf16, fp8 or auto");
  expect_refused("-m dbrx --weight-dtype int4", "--weight-dtype", "bf16 or fp8");
  expect_refused("-m dbrx --link fast", "--link", "");
  expect_refused("-m dbrx --skew zipf", "--skew", "dirichlet:ALPHA");
  expect_refused("-m dbrx --ep 3", "--ep", "3");
  expect_refused("-m dbrx --ep 7 --strategy tp+tp", "--ep", "48 attention heads");
  expect_refused("-m dbrx --ep 16 --batch 8 --strategy dp+ep", "--batch", "a multiple of --ep 16");
  expect_refused("-m dbrx --batch 4000000000000 --seq-len 1000000", "--batch", "4000000000000");
  expect_refused("-m dbrx --batch 1000000 --seq-len 8192", "--batch", "tokens per rank");
}

}  // namespace
}  // namespace eps::cli
