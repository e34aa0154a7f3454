#include "plan/virtual_clock.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "plan/op_table.h"

namespace eps::plan {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Events closer than this count as simultaneous. Otherwise, rounding errors would cause additional steps.
constexpr double kTick = 1e-9;

// Every step ends at least one op, unless rounding leaves a remainder of a long op: 2^-53 of its time, then 2^-53 of
// that, so that even 1e30 µs end after three more steps. If there are more steps, a number is not finite or the clock
// has a bug; either must result in an error rather than an endless loop.
constexpr size_t kMaxStepsPerOp = 8;

class StepCounter {
 public:
  explicit StepCounter(size_t num_ops) : left_((num_ops + 1) * kMaxStepsPerOp) {}
  void count(double step) {
    // Written such that NaN fails the check.
    EPS_CHECK(step >= 0 && step < kNever && left_ > 0, "the predicted time of a plan's op is not finite: step {}",
              step);
    --left_;
  }

 private:
  size_t left_;
};

// A discrete-event simulation. Between two events nothing starts or ends, so every running op has a constant rate, and
// the time of the next event follows from the remaining work.
class Clock {
 public:
  Clock(const Plan& plan, const ClockWork& work)
      : plan_(plan),
        work_(work),
        num_ranks_(static_cast<size_t>(work.num_ranks)),
        times_(plan.ops.size() * num_ranks_, OpTime{kNever, kNever}),
        arrived_(plan.ops.size(), 0),
        lanes_(num_ranks_ * kNumLanes) {
    for (size_t i = 0; i < plan.ops.size(); ++i) order_[static_cast<size_t>(plan.ops[i].lane)].push_back(i);
    left_ = plan.ops.size() * num_ranks_;
  }

  std::vector<OpTime> run() {
    StepCounter steps(left_);
    while (left_ > 0) {
      start_ready();
      const double step = next_step();
      EPS_CHECK(step != kNever, "ops of a plan wait for each other: {} of {} have ended", times_.size() - left_,
                times_.size());
      steps.count(step);
      advance(step);
    }
    return std::move(times_);
  }

 private:
  struct LaneState {
    size_t next = 0;      // index in the lane's order of the op that is running or next
    bool posted = false;  // the dependencies of that op have ended; a collective may still wait for other ranks
    bool running = false;
    double left_us = 0;
  };

  LaneState& lane(size_t rank, size_t l) { return lanes_[rank * kNumLanes + l]; }
  OpTime& time(size_t op, size_t rank) { return times_[op * num_ranks_ + rank]; }
  size_t op_of(const LaneState& state, size_t l) const { return order_[l][state.next]; }

  bool is_ready(size_t op, size_t rank) {
    for (const int d : plan_.ops[op].deps) {
      if (!(time(static_cast<size_t>(d), rank).end_us <= now_ + kTick)) return false;
    }
    return true;
  }

  void begin(size_t op, size_t rank, LaneState& state) {
    state.running = true;
    state.left_us = work_.us[op * num_ranks_ + rank];
    time(op, rank).begin_us = now_;
  }

  void start_ready() {
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      for (size_t l = 0; l < kNumLanes; ++l) {
        LaneState& state = lane(rank, l);
        if (state.posted || state.next == order_[l].size() || !is_ready(op_of(state, l), rank)) continue;
        state.posted = true;
        const size_t op = op_of(state, l);
        if (!kLaneTable[l].moves_rows) {
          begin(op, rank, state);
          // A message starts on all ranks when the last of them is ready for it.
        } else if (++arrived_[op] == num_ranks_) {
          for (size_t r = 0; r < num_ranks_; ++r) begin(op, r, lane(r, l));
        }
      }
    }
  }

  // The current rates of the rank's lanes. Messages slow compute down. Two simultaneous messages share the link
  // equally.
  std::array<double, kNumLanes> rates(size_t rank) {
    const LaneState& compute = lane(rank, static_cast<size_t>(Lane::kCompute));
    int messages = 0;
    for (size_t l = 0; l < kNumLanes; ++l) messages += kLaneTable[l].moves_rows && lane(rank, l).running ? 1 : 0;
    std::array<double, kNumLanes> out;
    out.fill(1);
    if (messages == 0) return out;
    ClockRates slowed;
    if (compute.running) {
      slowed = work_.rates[op_of(compute, static_cast<size_t>(Lane::kCompute)) * num_ranks_ + rank];
    }
    for (size_t l = 0; l < kNumLanes; ++l) {
      out[l] = kLaneTable[l].moves_rows ? slowed.comm_beside_compute / messages : slowed.compute_beside_comm;
    }
    return out;
  }

  double next_step() {
    double step = kNever;
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      const auto rate = rates(rank);
      for (size_t l = 0; l < kNumLanes; ++l) {
        if (lane(rank, l).running) step = std::min(step, lane(rank, l).left_us / rate[l]);
      }
    }
    return step;
  }

  void advance(double step) {
    now_ += step;
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      const auto rate = rates(rank);
      for (size_t l = 0; l < kNumLanes; ++l) {
        LaneState& state = lane(rank, l);
        if (!state.running) continue;
        state.left_us -= step * rate[l];
        if (state.left_us > kTick) continue;
        time(op_of(state, l), rank).end_us = now_;
        ended_.push_back(&state);
      }
    }
    // The lanes are updated only now, because the rates of the other lanes depend on which ops run, and the loop above
    // must use the rates of the step.
    for (LaneState* state : ended_) {
      state->running = state->posted = false;
      ++state->next;
      --left_;
    }
    ended_.clear();
  }

  const Plan& plan_;
  const ClockWork& work_;
  size_t num_ranks_;
  std::array<std::vector<size_t>, kNumLanes> order_;
  std::vector<OpTime> times_;
  std::vector<size_t> arrived_;
  std::vector<LaneState> lanes_;
  std::vector<LaneState*> ended_;
  size_t left_ = 0;
  double now_ = 0;
};

}  // namespace

std::vector<OpTime> run_virtual_clock(const Plan& plan, const ClockWork& work) {
  EPS_CHECK_EQ(work.us.size(), plan.ops.size() * static_cast<size_t>(work.num_ranks));
  EPS_CHECK_EQ(work.rates.size(), work.us.size());
  // Rates outside (0, 1] would give meaningless times. NaN fails both comparisons.
  for (size_t i = 0; i < work.us.size(); ++i) {
    const auto& [compute, comm] = work.rates[i];
    EPS_CHECK(work.us[i] >= 0 && work.us[i] < kNever, "op {} takes {} µs", i, work.us[i]);
    EPS_CHECK(compute > 0 && compute <= 1 && comm > 0 && comm <= 1, "op {} runs at rates {} and {}", i, compute, comm);
  }
  return Clock(plan, work).run();
}

double end_of(std::span<const OpTime> times) {
  double end = 0;
  for (const OpTime& t : times) end = std::max(end, t.end_us);
  return end;
}

// The same simulation for one rank and three lanes in a fixed order. It is the inner loop of the search, so its state
// consists of a few counters instead of lists of ops and dependencies.
double pipeline_makespan(const Pipeline& pipeline) {
  const size_t n = pipeline.stages.size();
  const auto stage = [&](size_t s) -> const PipelineStage& { return pipeline.stages[s]; };
  double now = pipeline.enter_us;
  // Index of the compute lane's current item: 0 = first, 1 … n = stages, n + 1 = last.
  size_t compute = 0;
  size_t dispatch = 0;  // number of messages that have ended
  size_t combine = 0;
  double compute_left = pipeline.first_us;
  double dispatch_left = n > 0 ? stage(0).dispatch_us : 0;
  double combine_left = n > 0 ? stage(0).combine_us : 0;
  StepCounter steps(3 * n + 2);
  while (true) {
    // Stage s computes after dispatch s has ended, and combine s runs after the compute of stage s. Item s + 1 of the
    // compute lane is stage s, so `dispatch >= compute` and `compute > combine + 1` express these dependencies.
    const bool computes = compute <= n + 1 && (compute == 0 || compute > n || dispatch >= compute);
    const bool dispatches = dispatch < n;
    const bool combines = combine < n && compute > combine + 1;
    if (!computes && !dispatches && !combines) break;
    const double share = dispatches && combines ? 0.5 : 1.0;
    double compute_rate = 1;
    double comm_rate = share;
    if (computes && (dispatches || combines)) {
      const ClockRates& r = compute == 0 || compute > n ? pipeline.outer : stage(compute - 1).rates;
      compute_rate = r.compute_beside_comm;
      comm_rate = share * r.comm_beside_compute;
    }
    double step = kNever;
    if (computes) step = compute_left / compute_rate;
    if (dispatches) step = std::min(step, dispatch_left / comm_rate);
    if (combines) step = std::min(step, combine_left / comm_rate);
    steps.count(step);
    now += step;
    if (computes && (compute_left -= step * compute_rate) <= kTick) {
      ++compute;
      if (compute <= n + 1) compute_left = compute <= n ? stage(compute - 1).compute_us : pipeline.last_us;
    }
    if (dispatches && (dispatch_left -= step * comm_rate) <= kTick) {
      if (++dispatch < n) dispatch_left = stage(dispatch).dispatch_us;
    }
    if (combines && (combine_left -= step * comm_rate) <= kTick) {
      if (++combine < n) combine_left = stage(combine).combine_us;
    }
  }
  return now + pipeline.finish_us + pipeline.leave_us;
}

}  // namespace eps::plan
