// `bench sweep` through the command line: its columns, its JSON and refused options.
#include "cli/bench_sweep_output.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "cli/table.h"
#include "engine/factory.h"
#include "measure/stats.h"
#include "support/run_command.h"

namespace eps::cli {
namespace {

const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/golden/plain";  // context 64

std::string sweep(const std::string& arguments) {
  return test::run_command("bench sweep --load-format dummy --threads 1 -m " + kModel + " " + arguments);
}

std::string usage_error(const std::string& arguments) {
  try {
    sweep(arguments);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage) << e.what();
    return e.what();
  }
  return "no error";
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) out.push_back(line);
  return out;
}

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> out;
  std::istringstream stream(line.substr(1));
  for (std::string cell; std::getline(stream, cell, '|');) {
    const size_t begin = cell.find_first_not_of(' ');
    out.push_back(begin == std::string::npos ? "" : cell.substr(begin, cell.find_last_not_of(' ') + 1 - begin));
  }
  return out;
}

TEST(BenchSweep, PrintsATableWithARowForEachTest) {
  const std::string out = sweep("-p 8,16 -n 4 -r 2 --ep 2 --eps-pipeline 2");
  const auto lines = lines_of(out);
  ASSERT_GE(lines.size(), 5U) << out;
  EXPECT_EQ(cells_of(lines[0]), (std::vector<std::string>{"model", "size", "params", "backend", "threads", "ep",
                                                          "pipeline", "test", "t/s"}));
  const auto rule = cells_of(lines[1]);
  EXPECT_EQ(rule[0].back(), '-');
  EXPECT_EQ(rule[8].back(), ':');
  const std::vector<std::string> tests = {"pp8", "pp16", "tg4"};
  for (size_t i = 0; i < tests.size(); ++i) {
    EXPECT_EQ(cell_width(lines[2 + i]), cell_width(lines[0])) << "columns line up: " << lines[2 + i];
    const auto cells = cells_of(lines[2 + i]);
    EXPECT_EQ(cells[0], "plain (dummy weights)");
    const std::string op_set = engine::make_op_sets("cpu", "auto", 1, 1).front()->description();
    EXPECT_EQ(cells[3], op_set.substr(0, op_set.find(',')));
    EXPECT_EQ(cells[4], "1");
    EXPECT_EQ(cells[5], "2");
    EXPECT_EQ(cells[6], "2");
    EXPECT_EQ(cells[7], tests[i]);
    EXPECT_NE(cells[8].find(" ± "), std::string::npos) << cells[8];
    EXPECT_GT(std::stod(cells[8]), 0.0);
  }
}

void expect_fields(const nlohmann::json& o, int64_t n_prompt, int64_t n_gen, size_t repetitions) {
  EXPECT_EQ(o.at("n_prompt"), n_prompt);
  EXPECT_EQ(o.at("n_gen"), n_gen);
  EXPECT_EQ(o.at("model_filename"), kModel);
  EXPECT_EQ(o.at("n_threads"), 1);
  EXPECT_GT(o.at("model_size").get<int64_t>(), 0);
  EXPECT_GT(o.at("model_n_params").get<int64_t>(), 0);
  EXPECT_EQ(o.at("test_time").get<std::string>().size(), std::string("2026-01-31T12:00:00Z").size());
  ASSERT_EQ(o.at("samples_ns").size(), repetitions);
  ASSERT_EQ(o.at("samples_ts").size(), repetitions);
  double sum_ns = 0;
  double sum_ts = 0;
  for (size_t i = 0; i < repetitions; ++i) {
    const double ns = o.at("samples_ns")[i];
    sum_ns += ns;
    sum_ts += o.at("samples_ts")[i].get<double>();
    EXPECT_NEAR(o.at("samples_ts")[i].get<double>(), 1e9 * static_cast<double>(n_prompt + n_gen) / ns, 1e-6 * 1e9 / ns);
  }
  const auto n = static_cast<double>(repetitions);
  EXPECT_NEAR(o.at("avg_ns").get<double>(), sum_ns / n, 1.0);
  EXPECT_NEAR(o.at("avg_ts").get<double>(), sum_ts / n, 1e-6 * sum_ts);
  EXPECT_GE(o.at("stddev_ts").get<double>(), 0.0);
  EXPECT_GE(o.at("stddev_ns").get<double>(), 0.0);
}

TEST(BenchSweep, JsonIsOneArrayAndJsonLinesAnObjectALine) {
  const auto array = nlohmann::json::parse(sweep("-p 64 -n 64 -r 3 -o json"));
  ASSERT_EQ(array.size(), 2U);
  expect_fields(array[0], 64, 0, 3);
  expect_fields(array[1], 0, 64, 3);
  const auto lines = lines_of(sweep("-p 4 -n 2,3 -r 1 -o jsonl"));
  ASSERT_EQ(lines.size(), 3U);
  expect_fields(nlohmann::json::parse(lines[0]), 4, 0, 1);
  expect_fields(nlohmann::json::parse(lines[1]), 0, 2, 1);
  expect_fields(nlohmann::json::parse(lines[2]), 0, 3, 1);
  EXPECT_EQ(nlohmann::json::parse(lines[0]).at("stddev_ts"), 0.0);
}

TEST(BenchSweep, DepthIsInTheContextButNotInTheTimes) {
  const std::string table = sweep("-p 8 -n 4 -d 0,16 -r 1");
  const auto lines = lines_of(table);
  ASSERT_GE(lines.size(), 6U) << table;
  const std::vector<std::string> tests = {"pp8", "tg4", "pp8 @ d16", "tg4 @ d16"};
  for (size_t i = 0; i < tests.size(); ++i) EXPECT_EQ(cells_of(lines[2 + i])[7], tests[i]);
  const auto array = nlohmann::json::parse(sweep("-p 8 -n 0 --n-depth 16 -r 2 -o json"));
  ASSERT_EQ(array.size(), 1U);
  EXPECT_EQ(array[0].at("n_depth"), 16);
  expect_fields(array[0], 8, 0, 2);
  const std::string too_long = usage_error("-p 32 -n 0 -d 40");
  EXPECT_NE(too_long.find("-p: longer than the context: got 72 tokens, wanted at most 64; try -p 24"),
            std::string::npos)
      << too_long;
  EXPECT_NE(usage_error("-p 1 -n 0 -d 64").find("-d: longer"), std::string::npos);
  EXPECT_NE(usage_error("-p 1 --n-depth=-1").find("-d: out of range"), std::string::npos);
}

TEST(BenchSweep, CsvHasAHeaderAndAsManyCellsInEveryRow) {
  const auto lines = lines_of(sweep("-p 4 -n 0 -r 1 -o csv"));
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_NE(lines[0].find("\"n_prompt\",\"n_gen\""), std::string::npos) << lines[0];
  const auto count = [](const std::string& line) { return std::count(line.begin(), line.end(), '"'); };
  EXPECT_EQ(count(lines[0]), count(lines[1]));
}

TEST(BenchSweep, RefusesInvalidOptions) {
  const std::string too_long = usage_error("-p 65 -n 0");
  EXPECT_NE(too_long.find("-p: longer than the context: got 65 tokens, wanted at most 64; try -p 64"),
            std::string::npos)
      << too_long;
  EXPECT_NE(usage_error("-p 0 -n 65").find("-n: longer"), std::string::npos);
  EXPECT_NE(usage_error("").find("got 512 tokens"), std::string::npos) << "the default prompt does not fit 64";
  EXPECT_NE(usage_error("-p 0 -n 0").find("nothing to measure"), std::string::npos);
  EXPECT_NE(usage_error("--n-prompt=-3").find("-p: out of range: got -3"), std::string::npos);
  EXPECT_NE(usage_error("-p 4 -r 0").find("-r: out of range"), std::string::npos);
  EXPECT_NE(usage_error("-p 4 -o xml").find("wanted md, csv, json or jsonl"), std::string::npos);
  EXPECT_THROW(sweep("-p 4,x"), test::ParseError);
  EXPECT_THROW(test::run_command("bench"), test::ParseError) << "bench alone measures nothing";
}

TEST(BenchSweep, AnInterruptKeepsFinishedTestsAndTheJsonWhole) {
  measure::SweepOptions options;
  options.engine.model = kModel;
  options.engine.dummy_weights = true;
  options.engine.threads = 1;
  options.prompts = {4};
  options.generated = {2};
  options.repetitions = 2;
  const auto engine = Engine::open(options.engine);
  for (const int allowed : {0, 1, 2, 3, 4}) {
    std::string out;
    int asked = 0;
    std::optional<SweepPrinter> printer;
    const measure::SweepEvents events{
        .on_begin =
            [&](const measure::SweepModel& model) {
              printer.emplace(options, model, SweepFormat::kJson);
              out += printer->header();
            },
        .on_progress = [](const measure::SweepTest&, int, int) {},
        .on_result = [&](const measure::SweepResult& result) { out += printer->row(result); },
    };
    const bool complete = measure::run_sweep(options, *engine, events, [&] { return ++asked <= allowed; });
    out += printer->footer();
    EXPECT_EQ(complete, allowed == 4);
    EXPECT_EQ(nlohmann::json::parse(out).size(), static_cast<size_t>(allowed / 2)) << out;
  }
}

TEST(BenchStats, QuantilesInterpolateAndDeviationIsOfASample) {
  const measure::Spread s = measure::spread({5, 1, 2, 3, 4});
  EXPECT_DOUBLE_EQ(s.median, 3);
  EXPECT_DOUBLE_EQ(s.p10, 1.4);
  EXPECT_DOUBLE_EQ(s.p90, 4.6);
  EXPECT_DOUBLE_EQ(measure::spread({7}).p90, 7);
  EXPECT_DOUBLE_EQ(measure::spread({1, 2}).median, 1.5);
  const measure::MeanDeviation m = measure::mean_deviation({2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_DOUBLE_EQ(m.mean, 5);
  EXPECT_NEAR(m.deviation, std::sqrt(32.0 / 7), 1e-12);
  EXPECT_DOUBLE_EQ(measure::mean_deviation({3}).deviation, 0);
}

// Whatever the op set, the model and the pipeline are called.
TEST(BenchSweep, ColumnsAreAsWideAsTheirCells) {
  for (const char* op_set : {"cpu f32 (avx2), 1 thread", "cpu bf16 (avx512_bf16_with_a_long_name), 1 thread", "x"}) {
    for (const char* name : {"m", "a model whose name takes more than thirty characters", "größe|x"}) {
      measure::SweepOptions options;
      options.prompts = {1, 100'000'000};
      options.engine.eps_pipeline = "microbatch";
      SweepPrinter printer(options, {name, true, uint64_t{3} << 30, 1'000'000, op_set, 128, "dp+ep"},
                           SweepFormat::kMarkdown);
      const std::string header = printer.header();
      const std::string row = printer.row({{100'000'000, 0}, "", {1'000'000'000'000, 1'200'000'000'000}});
      const auto first = lines_of(header).front();
      EXPECT_EQ(cell_width(lines_of(header).back()), cell_width(first)) << header;
      // A | in a cell is escaped, which the line shows and cell_width of a whole line would count again.
      const auto bars = static_cast<int>(std::count(row.begin(), row.end(), '|'));
      const auto bars_above = static_cast<int>(std::count(first.begin(), first.end(), '|'));
      EXPECT_EQ(cell_width(lines_of(row).front()) - bars, cell_width(first) - bars_above) << header << row;
    }
  }
}

TEST(Table, EscapesCharactersThatWouldBreakALine) {
  const std::vector<TableColumn> columns = {{"a", 6, false}, {"longer than its width", 4, true}};
  EXPECT_EQ(markdown_header(columns), "| a      | longer than its width |\n| ------ | --------------------: |\n");
  const std::vector<std::string> cells = {"x|y", "2"};
  EXPECT_EQ(markdown_row(columns, cells), "| x\\|y   |                     2 |\n");
  const std::vector<std::string> quoted = {"say \"hi\"", "", "a,b"};
  EXPECT_EQ(csv_row(quoted), "\"say \"\"hi\"\"\",\"\",\"a,b\"\n");
}

}  // namespace
}  // namespace eps::cli
