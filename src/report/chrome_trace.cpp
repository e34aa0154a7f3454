#include "report/chrome_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <set>
#include <utility>
#include <vector>

namespace eps::report {

std::string chrome_trace_json(const exec::TraceRecorder& recorder) {
  const std::vector<exec::TraceRecorder::Event> events = recorder.events();
  int64_t start = events.empty() ? 0 : std::numeric_limits<int64_t>::max();
  int num_ranks = 0;
  std::set<std::pair<int, bool>> processes;  // rank, predicted: in the order in which they are shown
  for (const exec::TraceRecorder::Event& e : events) {
    start = std::min(start, e.event.begin_ns);
    num_ranks = std::max(num_ranks, e.rank + 1);
    processes.emplace(e.rank, e.predicted);
  }
  const auto pid_of = [num_ranks](int rank, bool predicted) { return rank + (predicted ? num_ranks : 0); };
  std::string out = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  const auto line = std::back_inserter(out);
  for (const auto& [rank, predicted] : processes) {
    const int pid = pid_of(rank, predicted);
    fmt::format_to(line, R"({{"ph":"M","pid":{},"name":"process_name","args":{{"name":"rank {}{}"}}}})", pid, rank,
                   predicted ? " predicted" : "");
    out += ",\n";
    fmt::format_to(line, R"({{"ph":"M","pid":{},"name":"process_sort_index","args":{{"sort_index":{}}}}})", pid,
                   2 * rank + (predicted ? 1 : 0));
    out += ",\n";
    for (int lane = 0; lane < plan::kNumLanes; ++lane) {
      fmt::format_to(line, R"({{"ph":"M","pid":{},"tid":{},"name":"thread_name","args":{{"name":"{}"}}}})", pid, lane,
                     plan::to_string(static_cast<plan::Lane>(lane)));
      out += ",\n";
    }
  }
  const auto us = [](int64_t ns) { return static_cast<double>(ns) / 1000.0; };
  for (const exec::TraceRecorder::Event& e : events) {
    fmt::format_to(line, R"({{"ph":"X","pid":{},"tid":{},"name":"{}","ts":{:.3f},"dur":{:.3f},"args":{{)",
                   pid_of(e.rank, e.predicted), static_cast<int>(e.event.lane), e.event.name,
                   us(e.event.begin_ns - start), us(e.event.end_ns - e.event.begin_ns));
    if (e.event.layer >= 0) fmt::format_to(line, R"("layer":{})", e.event.layer);
    if (e.event.stage >= 0) fmt::format_to(line, R"({}"stage":{})", e.event.layer >= 0 ? "," : "", e.event.stage);
    out += "}},\n";
  }
  fmt::format_to(line, R"({{"ph":"M","pid":0,"name":"epsmoe","args":{{"dropped_events":{}}}}}]}})",
                 recorder.num_dropped());
  out += "\n";
  return out;
}

}  // namespace eps::report
