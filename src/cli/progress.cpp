#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "base/clock.h"
#include "cli/console.h"

namespace eps::cli {
namespace {
constexpr int64_t kQuietNs = 1'000'000'000;  // work that takes less time shows nothing
constexpr int64_t kRedrawNs = 100'000'000;
constexpr int kBarWidth = 30;
}  // namespace

Progress::Progress(std::string label, std::string unit)
    : label_(std::move(label)), unit_(std::move(unit)), terminal_(isatty(STDERR_FILENO) == 1), start_ns_(now_ns()) {}

Progress::~Progress() {
  if (!terminal_ || !drawn_) return;
  set_open_line(false);
  write_error("\r\033[K");
}

void Progress::update(uint64_t done, uint64_t total) {
  const int64_t now = now_ns();
  if (now - start_ns_ < kQuietNs) return;
  if (terminal_) {
    if (now - last_draw_ns_ < kRedrawNs) return;
    last_draw_ns_ = now;
    draw(done, total);
    return;
  }
  const int quarter = total == 0 ? 0 : static_cast<int>(4 * done / total);
  if (quarter <= last_quarter_) return;
  last_quarter_ = quarter;
  draw(done, total);
}

void Progress::draw(uint64_t done, uint64_t total) {
  const uint64_t divisor = unit_ == "MB" ? 1'000'000 : 1;
  std::string line = label_;
  if (total > 0) {
    const double fraction = static_cast<double>(done) / static_cast<double>(total);
    const int filled = static_cast<int>(fraction * kBarWidth);
    line += fmt::format(" [{:█<{}}{: <{}}] {:3.0f} %  {}/{} {}", "", filled, "", kBarWidth - filled, 100 * fraction,
                        done / divisor, total / divisor, unit_);
  } else {
    line += fmt::format(" {} {}", done / divisor, unit_);
  }
  print_error("{}{}{}", terminal_ ? "\r" : "", line, terminal_ ? "\033[K" : "\n");
  drawn_ = true;
  if (terminal_) set_open_line(true);
}

}  // namespace eps::cli
