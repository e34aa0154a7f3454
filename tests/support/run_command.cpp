#include "support/run_command.h"

#include <gtest/gtest.h>

#include "cli/command.h"
#include "cli/flag_names.h"

namespace eps::test {

std::string run_command(const std::string& line) {
  CLI::App app;
  cli::Chosen chosen;
  cli::add_bench_command(app, chosen);
  cli::add_generate_command(app, chosen);
  cli::add_inspect_command(app, chosen);
  cli::add_perplexity_command(app, chosen);
  cli::add_plan_command(app, chosen);
  cli::add_simulate_command(app, chosen);
  cli::check_notation(app);
  try {
    app.parse(line);
  } catch (const CLI::ParseError& e) {
    throw ParseError(e.what());
  }
  testing::internal::CaptureStdout();
  int code = -1;
  try {
    code = chosen.action();
  } catch (const Error& e) {
    testing::internal::GetCapturedStdout();
    throw cli::with_flags(app, e);
  } catch (...) {
    testing::internal::GetCapturedStdout();
    throw;
  }
  EXPECT_EQ(code, 0) << line;
  return testing::internal::GetCapturedStdout();
}

}  // namespace eps::test
