#include "ops/cuda/stream_lanes.h"

#include "base/clock.h"

namespace eps::cuda {
namespace {

int64_t ns_between(const EventPtr& from, const EventPtr& to) {
  float ms = 0;
  EPS_CUDA(cudaEventElapsedTime(&ms, from.get(), to.get()));
  return static_cast<int64_t>(static_cast<double>(ms) * 1e6);
}

}  // namespace

StreamLanes::StreamLanes(cudaStream_t compute)
    // Messages need few SMs, and GEMMs would otherwise occupy all of them as they become free.
    : dispatch_(make_urgent_stream()),
      combine_(make_urgent_stream()),
      streams_{compute, dispatch_.get(), combine_.get()},
      joined_(make_event()) {}

void StreamLanes::wait_for(plan::Lane lane, plan::Lane other) {
  // One event suffices for all joins, because a wait refers to the latest record before it, not to later ones.
  EPS_CUDA(cudaEventRecord(joined_.get(), stream(other)));
  EPS_CUDA(cudaStreamWaitEvent(stream(lane), joined_.get()));
}

void StreamLanes::wait() noexcept {
  for (const cudaStream_t stream : streams_) cudaStreamSynchronize(stream);
}

void StreamLanes::run(const plan::Plan& plan, const std::function<void(int)>& run_op,
                      const std::function<void(const char*)>& on_error) {
  while (events_.size() < plan.ops.size()) events_.push_back({make_event(), nullptr, nullptr});
  timeline_.clear();
  is_timed_ = records_times_;
  if (is_timed_) {
    if (origin_ == nullptr) origin_ = make_timing_event();
    EPS_CUDA(cudaEventRecord(origin_.get(), stream(plan::Lane::kCompute)));
    EPS_CUDA(cudaEventSynchronize(origin_.get()));
    origin_ns_ = now_ns();
  }
  try {
    // Ops are issued in plan order, in which dependencies come first, so the event that an op waits for has already
    // been recorded.
    for (size_t i = 0; i < plan.ops.size(); ++i) {
      const plan::PlanOp& op = plan.ops[i];
      OpEvents& events = events_[i];
      for (const int dep : op.deps) {
        // A stream runs its own work in order.
        if (is_one_stream_ || plan.ops[static_cast<size_t>(dep)].lane == op.lane) continue;
        EPS_CUDA(cudaStreamWaitEvent(stream(op.lane), events_[static_cast<size_t>(dep)].done.get()));
      }
      if (is_timed_) {
        if (events.begin == nullptr) events.begin = make_timing_event();
        if (events.end == nullptr) events.end = make_timing_event();
        EPS_CUDA(cudaEventRecord(events.begin.get(), stream(op.lane)));
        timeline_.push_back({std::string(plan::to_string(op.kind)), op.lane, -1, op.stage, 0, 0});
      }
      run_op(static_cast<int>(i));
      if (is_timed_) EPS_CUDA(cudaEventRecord(events.end.get(), stream(op.lane)));
      if (!is_one_stream_) EPS_CUDA(cudaEventRecord(events.done.get(), stream(op.lane)));
    }
  } catch (const std::exception& e) {
    on_error(e.what());
    throw;
  }
}

const std::vector<device::TimelineEvent>& StreamLanes::timeline() {
  if (!is_timed_) return timeline_;
  for (size_t i = 0; i < timeline_.size(); ++i) {
    EPS_CUDA(cudaEventSynchronize(events_[i].end.get()));
    timeline_[i].begin_ns = origin_ns_ + ns_between(origin_, events_[i].begin);
    timeline_[i].end_ns = origin_ns_ + ns_between(origin_, events_[i].end);
  }
  is_timed_ = false;
  return timeline_;
}

}  // namespace eps::cuda
