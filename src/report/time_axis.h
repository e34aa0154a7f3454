// Formats times for readers: an axis with round ticks, and a single time as text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace eps::report {

struct TimeTick {
  double at_us = 0;
  std::string label;  // without the unit: "0.25"
};

struct TimeAxis {
  std::string_view unit;  // "µs", "ms" or "s"
  std::vector<TimeTick> ticks;
};

// At most `max_ticks` (2 or more) ticks at multiples of 1, 2 or 5 times a power of ten, from 0 to at most `span_us`.
// Edge  one tick, at 0, when the span is not positive
TimeAxis make_time_axis(double span_us, int max_ticks);

// A few digits and a suitable unit: "0.83 µs", "123.4 µs", "12.34 ms".
std::string time_text(double us);

}  // namespace eps::report
