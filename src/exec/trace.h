// Collects the timelines of all ranks, measured and predicted; report/chrome_trace.h writes them to a file.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "exec/timeline.h"

namespace eps::exec {

class TraceRecorder {
 public:
  // Keeps at most `max_events` events (about 100 bytes each). Later events are dropped and counted.
  explicit TraceRecorder(size_t max_events = 2'000'000) : max_events_(max_events) {}

  // Threads  any thread
  void add(int rank, const std::vector<device::TimelineEvent>& events);
  // Adds the predicted events of a rank's plan (exec/predicted_events.h), on the same clock as the measured ones.
  void add_predicted(int rank, const std::vector<device::TimelineEvent>& events);

  struct Event {
    int rank;
    bool predicted;
    device::TimelineEvent event;
  };
  std::vector<Event> events() const;
  int64_t num_dropped() const;

 private:
  void add(int rank, bool predicted, const std::vector<device::TimelineEvent>& events);  // mutex_ held

  mutable std::mutex mutex_;
  size_t max_events_;
  std::vector<Event> events_;
  std::map<int, std::vector<size_t>> last_predicted_;  // by rank: indices in events_ of its latest prediction
  int64_t num_dropped_ = 0;
};

}  // namespace eps::exec
