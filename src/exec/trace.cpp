#include "exec/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <set>
#include <utility>

namespace eps {

void TraceRecorder::add(int rank, const std::vector<TimelineEvent>& events) {
  const std::lock_guard lock(mutex_);
  add(rank, false, events);
}

void TraceRecorder::add_promised(int rank, const std::vector<TimelineEvent>& events) {
  if (events.empty()) return;
  int64_t begin = events.front().begin_ns;
  for (const TimelineEvent& event : events) begin = std::min(begin, event.begin_ns);
  // A promise that was too long ends where the next one begins: events of one track must not overlap.
  const std::lock_guard lock(mutex_);
  std::vector<size_t>& last = last_promise_[rank];
  for (const size_t i : last) {
    events_[i].event.begin_ns = std::min(events_[i].event.begin_ns, begin);
    events_[i].event.end_ns = std::min(events_[i].event.end_ns, begin);
  }
  last.clear();
  for (size_t i = 0; i < events.size() && events_.size() + i < max_events_; ++i) last.push_back(events_.size() + i);
  add(rank, true, events);
}

void TraceRecorder::add(int rank, bool promised, const std::vector<TimelineEvent>& events) {
  for (const TimelineEvent& event : events) {
    if (events_.size() < max_events_) {
      events_.push_back({rank, promised, event});
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
  int64_t start = events_.empty() ? 0 : std::numeric_limits<int64_t>::max();
  int num_ranks = 0;
  std::set<std::pair<int, bool>> processes;  // rank, promised: in the order in which they are shown
  for (const Event& e : events_) {
    start = std::min(start, e.event.begin_ns);
    num_ranks = std::max(num_ranks, e.rank + 1);
    processes.emplace(e.rank, e.promised);
  }
  const auto pid_of = [num_ranks](int rank, bool promised) { return rank + (promised ? num_ranks : 0); };
  std::string out = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  const auto line = std::back_inserter(out);
  for (const auto& [rank, promised] : processes) {
    const int pid = pid_of(rank, promised);
    fmt::format_to(line, R"({{"ph":"M","pid":{},"name":"process_name","args":{{"name":"rank {}{}"}}}})", pid, rank,
                   promised ? " promised" : "");
    out += ",\n";
    fmt::format_to(line, R"({{"ph":"M","pid":{},"name":"process_sort_index","args":{{"sort_index":{}}}}})", pid,
                   2 * rank + (promised ? 1 : 0));
    out += ",\n";
    for (int lane = 0; lane < kNumLanes; ++lane) {
      fmt::format_to(line, R"({{"ph":"M","pid":{},"tid":{},"name":"thread_name","args":{{"name":"{}"}}}})", pid, lane,
                     to_string(static_cast<Lane>(lane)));
      out += ",\n";
    }
  }
  const auto us = [](int64_t ns) { return static_cast<double>(ns) / 1000.0; };
  for (const Event& e : events_) {
    fmt::format_to(line, R"({{"ph":"X","pid":{},"tid":{},"name":"{}","ts":{:.3f},"dur":{:.3f},"args":{{)",
                   pid_of(e.rank, e.promised), static_cast<int>(e.event.lane), e.event.name,
                   us(e.event.begin_ns - start), us(e.event.end_ns - e.event.begin_ns));
    if (e.event.layer >= 0) fmt::format_to(line, R"("layer":{})", e.event.layer);
    if (e.event.stage >= 0) fmt::format_to(line, R"({}"stage":{})", e.event.layer >= 0 ? "," : "", e.event.stage);
    out += "}},\n";
  }
  fmt::format_to(line, R"({{"ph":"M","pid":0,"name":"epsmoe","args":{{"dropped_events":{}}}}}]}})", num_dropped_);
  out += "\n";
  return out;
}

}  // namespace eps
