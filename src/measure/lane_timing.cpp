#include "measure/lane_timing.h"

#include <algorithm>

#include "base/clock.h"
#include "exec/lane_runner.h"
#include "measure/fill.h"
#include "measure/fit.h"
#include "measure/gemm_timing.h"

namespace eps::measure {
namespace {

// Messages of the same size from every rank to every other one.
class Messages {
 public:
  Messages(comm::Communicator& comm, size_t bytes) : comm_(comm) {
    const auto ranks = static_cast<size_t>(comm.size());
    memory_.reserve(std::max<size_t>(1, 2 * ranks * bytes));
    std::fill_n(memory_.data(), 2 * ranks * bytes, std::byte{1});
    for (size_t r = 0; r < ranks; ++r) {
      const size_t size = r == static_cast<size_t>(comm.rank()) ? 0 : bytes;
      send_.emplace_back(memory_.data() + r * bytes, size);
      recv_.emplace_back(memory_.data() + (ranks + r) * bytes, size);
    }
  }
  void run() { comm_.all_to_all(comm::Channel::kDispatch, send_, recv_); }

 private:
  comm::Communicator& comm_;
  Buffer memory_;
  std::vector<comm::ConstBytes> send_;
  std::vector<comm::MutableBytes> recv_;
};

// Time in µs of one all-to-all, from the arrival of the last rank. As in a layer, the ranks arrive at different times:
// those that wait for the last one sleep, and waking them is part of the time of a message.
double time_message_us(RepeatedTiming& timing, Messages& messages, bool quick) {
  constexpr int64_t kApartNs = 100'000;
  comm::Communicator& comm = timing.comm();
  const int repetitions = (quick ? 8 : 20) * comm.size();
  std::vector<double> mine;
  for (int i = 0; i <= repetitions; ++i) {
    comm.barrier();
    const bool is_last = i % comm.size() == comm.rank();
    if (is_last) {
      const int64_t end = now_ns() + kApartNs;
      while (now_ns() < end) {
      }
    }
    const int64_t begin = now_ns();
    messages.run();
    if (is_last && i > 0) mine.push_back(static_cast<double>(now_ns() - begin) * 1e-3);
  }
  return timing.median(mine);
}

plan::PlanOp op_on(plan::Lane lane, std::vector<int> deps) {
  const plan::OpKind kind = lane == plan::Lane::kCompute ? plan::OpKind::kGateUp : plan::OpKind::kDispatch;
  return {.kind = kind, .lane = lane, .stage = 0, .deps = std::move(deps)};
}

double duration_us(const device::TimelineEvent& event) {
  return static_cast<double>(event.end_ns - event.begin_ns) * 1e-3;
}

// Times of two ops that run at the same time, each with its own number of calls.
struct ConcurrentTimes {
  double compute_us;
  double comm_us;
};
ConcurrentTimes run_concurrently(exec::LaneRunner& lanes, comm::Communicator& comm,
                                 const std::function<void()>& compute, int compute_calls,
                                 const std::function<void()>& message, int messages) {
  plan::Plan plan;
  plan.ops = {op_on(plan::Lane::kCompute, {}), op_on(plan::Lane::kDispatch, {})};
  comm.barrier();
  lanes.run(
      plan,
      [&](int i) {
        const int calls = i == 0 ? compute_calls : messages;
        for (int call = 0; call < calls; ++call) i == 0 ? compute() : message();
      },
      [&](const char* what) { comm.abort(what); });
  return {duration_us(lanes.timeline()[0]), duration_us(lanes.timeline()[1])};
}

}  // namespace

std::vector<plan::LinkPoint> measure_links(RepeatedTiming& timing, const TuneOptions& options) {
  const int peers = timing.comm().size() - 1;
  if (peers == 0) return {};
  plan::Curve points;
  // From a few rows to more than a stage of a large layer sends.
  for (size_t bytes = size_t{1} << 10; bytes <= size_t{4} << 20; bytes *= options.quick ? 16 : 4) {
    Messages messages(timing.comm(), bytes);
    points.push_back({static_cast<double>(bytes) * peers, time_message_us(timing, messages, options.quick)});
  }
  const plan::OpCost cost = fit_cost(points);
  // The fitted line may underestimate the smallest message. Its time matters in decoding, where all messages are small,
  // so the latency is raised to match it.
  const plan::CurvePoint& least = points.front();
  return {{0, cost.gbps, std::max(cost.fixed_us, least.y - least.x * 1e-3 / cost.gbps)}};
}

double measure_handoff_us(RepeatedTiming& timing, const TuneOptions& options) {
  // The compute and dispatch lanes take turns. The independent op on the combine lane is needed because without it the
  // plan would be a chain, which runs on a single thread.
  constexpr int kTurns = 40;
  // Long enough for the waiting lane to fall asleep, as it does while a stage runs.
  constexpr int64_t kOpNs = 100'000;
  plan::Plan plan;
  plan.ops.push_back(op_on(plan::Lane::kCombine, {}));
  plan.ops.push_back(op_on(plan::Lane::kCompute, {}));
  for (int i = 2; i < kTurns; ++i)
    plan.ops.push_back(op_on(i % 2 == 0 ? plan::Lane::kDispatch : plan::Lane::kCompute, {i - 1}));
  const auto work = [](int i) {
    const int64_t end = now_ns() + (i == 0 ? 0 : kOpNs);
    while (now_ns() < end) {
    }
  };
  exec::LaneRunner lanes;
  std::vector<double> mine;
  const int repetitions = options.quick ? 3 : 10;
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    timing.comm().barrier();
    lanes.run(plan, work, [&](const char* what) { timing.comm().abort(what); });
    if (repetition == 0) continue;  // includes starting the threads
    for (size_t i = 2; i < plan.ops.size(); ++i) {
      const int64_t ns = lanes.timeline()[i].begin_ns - lanes.timeline()[i - 1].end_ns;
      mine.push_back(static_cast<double>(ns) * 1e-3);
    }
  }
  return timing.median(mine);
}

plan::Contention measure_contention(ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options) {
  if (timing.comm().size() == 1) return {};
  constexpr size_t kMessageBytes = size_t{1} << 20;
  constexpr double kOpUs = 20000;
  // The op that is not being measured is this much longer, so that it does not end first even if it gets less of the
  // cores.
  constexpr double kLonger = 4;
  const int64_t rows = std::min<int64_t>(64, options.max_rows);
  GemmBench bench(ops, options.expert_shapes.back(), options.weight_dtypes.front(), rows);
  Messages messages(timing.comm(), kMessageBytes);
  const auto compute = [&] { bench.run(rows, 1); };
  const auto message = [&] { messages.run(); };
  const auto calls = [](double us, double each) { return std::max(1, static_cast<int>(us / each)); };
  const double compute_us = timing.time_us(compute);
  const double message_us = timing.time_us(message);
  exec::LaneRunner lanes;
  std::vector<double> compute_longer;
  std::vector<double> comm_longer;
  const int repetitions = options.quick ? 3 : 7;
  for (int i = 0; i <= repetitions; ++i) {
    const int short_gemms = calls(kOpUs, compute_us);
    const int short_messages = calls(kOpUs, message_us);
    const double gemms_us =
        run_concurrently(lanes, timing.comm(), compute, short_gemms, message, calls(kLonger * kOpUs, message_us))
            .compute_us;
    const double messages_us =
        run_concurrently(lanes, timing.comm(), compute, calls(kLonger * kOpUs, compute_us), message, short_messages)
            .comm_us;
    if (i == 0) continue;  // includes starting the threads
    compute_longer.push_back(gemms_us / (short_gemms * compute_us) - 1);
    comm_longer.push_back(messages_us / (short_messages * message_us) - 1);
  }
  const double compute_part = std::max(0.0, timing.median(compute_longer));
  const double comm_part = std::max(0.0, timing.median(comm_longer));
  return {compute_part, comm_part, compute_part, comm_part};  // host threads have no budget, so both cases are the same
}

}  // namespace eps::measure
