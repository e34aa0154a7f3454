#include "exec/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace eps {

void TraceRecorder::add(int rank, const std::vector<TimelineEvent>& events) {
  const std::lock_guard lock(mutex_);
  for (const TimelineEvent& event : events) {
    if (events_.size() < max_events_) {
      events_.push_back({rank, event});
    } else {
      ++num_dropped_;
    }
  }
}

int64_t TraceRecorder::num_dropped() const {
  const std::lock_guard lock(mutex_);
  return num_dropped_;
}

std::string TraceRecorder::to_json() const {
  const std::lock_guard lock(mutex_);
  int64_t start = 0;
  int num_ranks = 0;
  for (const Event& e : events_) {
    start = start == 0 ? e.event.begin_ns : std::min(start, e.event.begin_ns);
    num_ranks = std::max(num_ranks, e.rank + 1);
  }
  std::string out = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  const auto line = std::back_inserter(out);
  for (int rank = 0; rank < num_ranks; ++rank) {
    fmt::format_to(line, R"({{"ph":"M","pid":{0},"name":"process_name","args":{{"name":"rank {0}"}}}})", rank);
    out += ",\n";
    for (int lane = 0; lane < kNumLanes; ++lane) {
      fmt::format_to(line, R"({{"ph":"M","pid":{},"tid":{},"name":"thread_name","args":{{"name":"{}"}}}})", rank, lane,
                     to_string(static_cast<Lane>(lane)));
      out += ",\n";
    }
  }
  const auto us = [](int64_t ns) { return static_cast<double>(ns) / 1000.0; };
  for (const Event& e : events_) {
    fmt::format_to(line, R"({{"ph":"X","pid":{},"tid":{},"name":"{}","ts":{:.3f},"dur":{:.3f},"args":{{)", e.rank,
                   static_cast<int>(e.event.lane), e.event.name, us(e.event.begin_ns - start),
                   us(e.event.end_ns - e.event.begin_ns));
    if (e.event.layer >= 0) fmt::format_to(line, R"("layer":{})", e.event.layer);
    if (e.event.stage >= 0) fmt::format_to(line, R"({}"stage":{})", e.event.layer >= 0 ? "," : "", e.event.stage);
    out += "}},\n";
  }
  fmt::format_to(line, R"({{"ph":"M","pid":0,"name":"epsmoe","args":{{"dropped_events":{}}}}}]}})", num_dropped_);
  out += "\n";
  return out;
}

}  // namespace eps
