// The line that shows progress, on terminals of every width.
#include "cli/progress.h"

#include <gtest/gtest.h>

#include "cli/table.h"

namespace eps::cli {
namespace {

TEST(ProgressLine, LeavesOutWhatDoesNotFit) {
  const auto line = [](int columns) {
    return progress_line("loading weights", "MB", 50'000'000, 200'000'000, columns);
  };
  EXPECT_EQ(line(80), "loading weights [███████                       ]  25 %  50/200 MB");
  EXPECT_EQ(line(60), "loading weights  25 %  50/200 MB");
  EXPECT_EQ(line(25), "loading weights  25 %");
  EXPECT_EQ(line(19), " 25 %");
  EXPECT_EQ(line(3), "");
  for (int columns = 1; columns <= 80; ++columns) EXPECT_LE(cell_width(line(columns)), columns);
}

TEST(ProgressLine, WithoutATotalShowsTheCount) {
  EXPECT_EQ(progress_line("reading", "tokens", 1234, 0, 80), "reading 1234 tokens");
  EXPECT_EQ(progress_line("reading", "tokens", 1234, 0, 12), "1234 tokens");
  EXPECT_EQ(progress_line("reading", "tokens", 1234, 0, 5), "");
}

TEST(ProgressLine, MoreThanTheTotalFillsTheBar) {
  EXPECT_NE(
      progress_line("x", "steps", 12, 10, 80).find(std::string("[") + std::string("██████████████████████████████]")),
      std::string::npos);
}

}  // namespace
}  // namespace eps::cli
