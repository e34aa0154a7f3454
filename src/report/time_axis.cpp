#include "report/time_axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace eps::report {
namespace {

struct Unit {
  std::string_view name;
  double us;
};

// Milliseconds are used from 10 000 µs on; below, the microseconds of single ops are short enough to read.
Unit unit_for(double us) {
  if (us < 1e4) return {"µs", 1};
  if (us < 1e7) return {"ms", 1e3};
  return {"s", 1e6};
}

}  // namespace

TimeAxis make_time_axis(double span_us, int max_ticks) {
  const Unit unit = unit_for(span_us);
  TimeAxis axis{unit.name, {}};
  if (!(span_us > 0)) {
    axis.ticks.push_back({0, "0"});
    return axis;
  }
  const double span = span_us / unit.us;
  const double least = span / std::max(1, max_ticks - 1);
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= least * (1 - 1e-9)) step = factor * power;
  }
  const int decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  for (int i = 0; step * i <= span * (1 + 1e-9); ++i) {
    axis.ticks.push_back({step * i * unit.us, fmt::format("{:.{}f}", step * i, decimals)});
  }
  return axis;
}

std::string time_text(double us) {
  const Unit unit = unit_for(us);
  const double value = us / unit.us;
  const int decimals = value < 100 ? 2 : value < 1000 ? 1 : 0;
  return fmt::format("{:.{}f} {}", value, decimals, unit.name);
}

}  // namespace eps::report
