// Lanes as CUDA streams: the calling thread issues all ops, and streams wait for each other's events.
#pragma once

#include <array>
#include <vector>

#include "device/lane_set.h"
#include "ops/cuda/cuda_context.h"

namespace eps::cuda {

class StreamLanes final : public LaneSet {
 public:
  // `compute` is the stream that the rank's other work is on; it outlives the object.
  explicit StreamLanes(cudaStream_t compute);

  cudaStream_t stream(Lane lane) const { return streams_[static_cast<size_t>(lane)]; }
  // What is issued to `lane` from now on begins after what has been issued to `other` so far.
  void wait_for(Lane lane, Lane other);

  // Returns when everything issued has ended, with an error or without.
  void wait() noexcept;

  void run(const Plan& plan, const std::function<void(int)>& run_op,
           const std::function<void(const char*)>& on_error) override;
  void record_times(bool record) { records_times_ = record; }
  const std::vector<TimelineEvent>& timeline() override;

 private:
  // An op's events. Those that time it are only made when times are recorded.
  struct OpEvents {
    EventPtr done, begin, end;
  };

  StreamPtr dispatch_, combine_;
  std::array<cudaStream_t, kNumLanes> streams_;
  EventPtr joined_;
  std::vector<OpEvents> events_;  // grows to the ops of the largest plan
  bool records_times_ = false;
  // Of the last run, where times are recorded: an event and the host's clock at the same moment, and the ops.
  EventPtr origin_;
  int64_t origin_ns_ = 0;
  std::vector<TimelineEvent> timeline_;
  bool is_timed_ = false;
};

}  // namespace eps::cuda
