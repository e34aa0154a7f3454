// One command of the command line, run in the test's own process.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "cli/command.h"
#include "cli/flag_names.h"

namespace eps::test {

// What `line` ("plan -m …") prints on stdout; `add_command` is the add_…_command of its first word. Errors of parsing
// and running come out as they are; a return code other than 0 fails the test.
inline std::string run_command(const std::function<void(CLI::App&, cli::Chosen&)>& add_command,
                               const std::string& line) {
  CLI::App app;
  cli::Chosen chosen;
  add_command(app, chosen);
  cli::require_decimal_numbers(app);
  app.parse(line);
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
