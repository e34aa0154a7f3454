// Lanes as CUDA streams. The calling thread issues all ops, and streams wait for each other through events.
#pragma once

#include <array>
#include <vector>

#include "device/lane_set.h"
#include "ops/cuda/cuda_context.h"

namespace eps::cuda {

class StreamLanes final : public device::LaneSet {
 public:
  // `compute` is the stream of the rank's other work; it must outlive the object.
  explicit StreamLanes(cudaStream_t compute);

  cudaStream_t stream(plan::Lane lane) const {
    return streams_[static_cast<size_t>(is_one_stream_ ? plan::Lane::kCompute : lane)];
  }
  // From now on, all lanes are the compute stream: for plans whose ops follow one another anyway.
  void use_one_stream(bool is_one_stream) { is_one_stream_ = is_one_stream; }
  // Work that is issued to `lane` from now on starts after everything that has been issued to `other` so far.
  void wait_for(plan::Lane lane, plan::Lane other);

  // Returns when everything that was issued has ended, whether or not it succeeded.
  void wait() noexcept;

  void run(const plan::Plan& plan, const std::function<void(int)>& run_op,
           const std::function<void(const char*)>& on_error) override;
  void record_times(bool record) { records_times_ = record; }
  const std::vector<device::TimelineEvent>& timeline() override;

 private:
  // The events of one op. Those for timing are created only if times are recorded.
  struct OpEvents {
    EventPtr done, begin, end;
  };

  StreamPtr dispatch_, combine_;
  std::array<cudaStream_t, plan::kNumLanes> streams_;
  EventPtr joined_;
  std::vector<OpEvents> events_;  // grows to the number of ops of the largest plan
  bool is_one_stream_ = false;
  bool records_times_ = false;
  // State for timing the last run: an event and the host's clock at the same moment, and the timed ops.
  EventPtr origin_;
  int64_t origin_ns_ = 0;
  std::vector<device::TimelineEvent> timeline_;
  bool is_timed_ = false;
};

}  // namespace eps::cuda
