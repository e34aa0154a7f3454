// A progress line on stderr for work that takes longer than a second.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace eps::cli {

// The line of Progress in at most `columns` characters. A narrow line has no bar, then no counts, and then no
// label. If `total` is 0, it is unknown.
std::string progress_line(std::string_view label, std::string_view unit, uint64_t done, uint64_t total, int columns);

// On a terminal, a bar that is redrawn and finally erased. Otherwise, a plain line after each quarter of the work.
class Progress {
 public:
  Progress(std::string label, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // If `total` is 0, it is unknown, and only the count is shown.
  void update(uint64_t done, uint64_t total);

 private:
  void draw(uint64_t done, uint64_t total);

  std::string label_;
  std::string unit_;  // "MB" divides counts by a million
  bool terminal_;
  int64_t start_ns_;
  int64_t last_draw_ns_ = 0;
  int last_quarter_ = 0;
  bool drawn_ = false;
};

}  // namespace eps::cli
