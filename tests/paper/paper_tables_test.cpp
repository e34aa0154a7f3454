// Checks that the program that prints the paper's tables runs, and that its inputs are valid. How close the figures
// come is a result (docs/paper.md) and not tested.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "calibration.h"
#include "paper_data.h"
#include "report/profile_store.h"
#include "tables.h"

namespace eps::paper {
namespace {

TableOptions fitted_options() {
  const std::string path = EPSMOE_SOURCE_DIR "/bench/paper/h800_paper.json";
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  TableOptions options;
  options.profile = report::parse_profile(text.str(), path);
  return options;
}

TEST(PaperTables, FittedProfileIsSound) {
  EXPECT_EQ(plan::find_profile_faults(fitted_options().profile), std::vector<std::string>{});
}

TEST(PaperTables, StartValuesMakeASoundProfile) {
  std::vector<double> values;
  for (const Parameter& p : parameters()) {
    EXPECT_LE(p.least, p.value) << p.name;
    EXPECT_LE(p.value, p.most) << p.name;
    values.push_back(p.value);
  }
  EXPECT_EQ(plan::find_profile_faults(make_profile(report::bundled_profile("h800"), values)),
            std::vector<std::string>{});
}

TEST(PaperTables, GemmsDoBestWith116Sms) {
  const TableOptions options = fitted_options();
  for (const T6Row& row : table6()) {
    const plan::MoeProblem problem = layer_problem(options.reading, {}, row.m, false);
    double least = std::numeric_limits<double>::infinity();
    int best = 0;
    for (const int sms : kT6Sms) {
      const double us = layer_us(options.profile, problem, {5, moe::GemmKind::kGrouped, sms});
      if (us >= least) continue;
      least = us;
      best = sms;
    }
    EXPECT_NEAR(best, 116, 8) << "m = " << row.m;
  }
}

TEST(PaperTables, EveryTableHasFigures) {
  const TableOptions options = fitted_options();
  for (const Section& section :
       {volumes(options), deepseek_gains(options), mixtral_ttft(options), dbrx_ttft(options), arctic_ttft(options),
        layer_times(options, 0), sm_budgets(options), pipeline_gains(options)}) {
    SCOPED_TRACE(section.title);
    EXPECT_FALSE(section.cells.empty());
    for (const Cell& cell : section.cells) EXPECT_TRUE(std::isfinite(cell.ours)) << cell.row << ", " << cell.column;
    Report report;
    report.sections = {section};
    EXPECT_NE(format_markdown(report).find(section.title), std::string::npos);
    EXPECT_NE(format_json_lines(report).find("\"paper\""), std::string::npos);
  }
}

TEST(PaperTables, SendingOnceAnExpertSendsEveryRow) {
  plan::MoeProblem problem = layer_problem({}, {}, 500, false);
  int64_t rows = 0;
  for (size_t e = 0; e < problem.load.size(); ++e) rows += problem.load[e] - problem.routing.local_load[e];
  send_once_an_expert(problem);
  plan::check_problem(problem);
  int64_t sent = 0;
  for (size_t i = 0; i < 16; ++i) {
    if (i % 5 != 0) sent += problem.routing.tokens_between[i];
  }
  EXPECT_NEAR(static_cast<double>(sent), static_cast<double>(rows), 12);  // rounded down for each pair of ranks
}

}  // namespace
}  // namespace eps::paper
