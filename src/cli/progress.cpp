#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "cli/console.h"
#include "cli/table.h"

namespace eps::cli {
namespace {
constexpr int64_t kQuietNs = 1'000'000'000;  // work that takes less time shows nothing
constexpr int64_t kRedrawNs = 100'000'000;
constexpr int kBarWidth = 30;
constexpr int kNoLimit = 1 << 20;

// A line that reaches the last column would wrap in some terminals, and be drawn again below itself.
int terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kNoLimit;
  return std::max(1, size.ws_col - 1);
}
}  // namespace

std::string progress_line(std::string_view label, std::string_view unit, uint64_t done, uint64_t total, int columns) {
  const uint64_t divisor = unit == "MB" ? 1'000'000 : 1;
  std::vector<std::string> lines;  // from the longest to the shortest
  if (total > 0) {
    const double fraction = static_cast<double>(done) / static_cast<double>(total);
    const int filled = std::clamp(static_cast<int>(fraction * kBarWidth), 0, kBarWidth);
    const std::string percent = fmt::format("{:3.0f} %", 100 * fraction);
    const std::string counts = fmt::format("  {}/{} {}", done / divisor, total / divisor, unit);
    lines.push_back(
        fmt::format("{} [{:█<{}}{: <{}}] {}{}", label, "", filled, "", kBarWidth - filled, percent, counts));
    lines.push_back(fmt::format("{} {}{}", label, percent, counts));
    lines.push_back(fmt::format("{} {}", label, percent));
    lines.push_back(percent);
  } else {
    lines.push_back(fmt::format("{} {} {}", label, done / divisor, unit));
    lines.push_back(fmt::format("{} {}", done / divisor, unit));
  }
  const auto fits = std::ranges::find_if(lines, [columns](const std::string& l) { return cell_width(l) <= columns; });
  return fits == lines.end() ? std::string() : *fits;
}

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
  const std::string line = progress_line(label_, unit_, done, total, terminal_ ? terminal_columns() : kNoLimit);
  print_error("{}{}{}", terminal_ ? "\r" : "", line, terminal_ ? "\033[K" : "\n");
  drawn_ = true;
  if (terminal_) set_open_line(true);
}

}  // namespace eps::cli
