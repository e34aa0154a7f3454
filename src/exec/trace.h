// Collects timelines of all ranks and writes them as Chrome trace JSON (chrome://tracing, Perfetto): pid = rank,
// tid = lane.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "exec/timeline.h"

namespace eps {

class TraceRecorder {
 public:
  // Keeps at most `max_events` (about 100 bytes each); later ones are counted and dropped.
  explicit TraceRecorder(size_t max_events = 2'000'000) : max_events_(max_events) {}

  // Threads  any
  void add(int rank, const std::vector<TimelineEvent>& events);
  std::string to_json() const;
  int64_t num_dropped() const;

 private:
  struct Event {
    int rank;
    TimelineEvent event;
  };
  mutable std::mutex mutex_;
  size_t max_events_;
  std::vector<Event> events_;
  int64_t num_dropped_ = 0;
};

}  // namespace eps
