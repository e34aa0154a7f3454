#include "device/lane_set_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/random.h"

namespace eps::test {
namespace {

constexpr plan::Lane kLanes[] = {plan::Lane::kCompute, plan::Lane::kDispatch, plan::Lane::kCombine};

void no_error(const char* what) { ADD_FAILURE() << "on_error was called: " << what; }

// Calls run() and notes in which order ops begin and end.
class Recorder {
 public:
  explicit Recorder(const plan::Plan& plan)
      : plan_(plan), count_(plan.ops.size(), 0), is_done_(plan.ops.size(), false) {}

  // Checks that an op begins once, after the ops it depends on and after those before it on its lane.
  void begin(int op) {
    const std::lock_guard lock(mutex_);
    const auto at = static_cast<size_t>(op);
    ++count_.at(at);
    for (const int dep : plan_.ops[at].deps) {
      EXPECT_TRUE(is_done_[static_cast<size_t>(dep)]) << "op " << op << " began before op " << dep << " ended";
    }
    for (size_t before = 0; before < at; ++before) {
      if (plan_.ops[before].lane != plan_.ops[at].lane) continue;
      EXPECT_TRUE(is_done_[before]) << "op " << op << " overtook op " << before << " on its lane";
    }
  }
  void end(int op) {
    const std::lock_guard lock(mutex_);
    is_done_[static_cast<size_t>(op)] = true;
  }
  bool has_begun(size_t op) const { return count_[op] > 0; }
  void expect_each_op_once() const {
    for (size_t i = 0; i < count_.size(); ++i) EXPECT_EQ(count_[i], 1) << "runs of op " << i;
  }

 private:
  const plan::Plan& plan_;
  std::mutex mutex_;
  std::vector<int> count_;
  std::vector<bool> is_done_;
};

void expect_in_order(device::LaneSet& lanes, const plan::Plan& plan) {
  Recorder recorder(plan);
  lanes.run(
      plan,
      [&](int op) {
        recorder.begin(op);
        if (op % 3 == 0) std::this_thread::yield();
        recorder.end(op);
      },
      no_error);
  recorder.expect_each_op_once();
}

plan::Plan chain(int num_ops) {
  plan::Plan out;
  for (int i = 0; i < num_ops; ++i) {
    out.ops.push_back({plan::OpKind::kGateUp, kLanes[i % 3], i, i == 0 ? std::vector<int>{} : std::vector<int>{i - 1}});
  }
  return out;
}

// Ops of all lanes that depend on nothing but their lane's order.
plan::Plan independent(int num_ops) {
  plan::Plan out;
  for (int i = 0; i < num_ops; ++i) out.ops.push_back({plan::OpKind::kGateUp, kLanes[i % 3], i, {}});
  return out;
}

// Any lanes, any earlier ops to depend on.
plan::Plan random_plan(uint64_t seed) {
  SplitMix64 random(seed);
  plan::Plan out;
  for (int i = 0; i < 60; ++i) {
    plan::PlanOp op{plan::OpKind::kGateUp, kLanes[random.bits() % 3], i, {}};
    for (int dep = 0; dep < i; ++dep) {
      if (random.bits() % 8 == 0) op.deps.push_back(dep);
    }
    out.ops.push_back(op);
  }
  return out;
}

void orders_of_every_kind(device::LaneSet& lanes) {
  expect_in_order(lanes, {});
  expect_in_order(lanes, chain(1));
  expect_in_order(lanes, chain(31));
  expect_in_order(lanes, independent(33));
  for (const int stages : {1, 2, 3, 8}) expect_in_order(lanes, pipelined_plan(stages));
  for (uint64_t seed = 0; seed < 20; ++seed) expect_in_order(lanes, random_plan(seed));
}

// One lane alone, each of the three.
void one_lane_alone(device::LaneSet& lanes) {
  for (const plan::Lane lane : kLanes) {
    plan::Plan plan;
    for (int i = 0; i < 5; ++i) plan.ops.push_back({plan::OpKind::kGateUp, lane, i, {}});
    expect_in_order(lanes, plan);
  }
}

// Plans that shrink and grow again: nothing of a run is left for the next one.
void many_runs(device::LaneSet& lanes) {
  for (int round = 0; round < 30; ++round) {
    expect_in_order(lanes, pipelined_plan(1 + (round * 5) % 7));
    if (round % 4 == 0) expect_in_order(lanes, chain(2));
  }
}

// Runs `plan`, in which `failing` throws. Returns what on_error was told.
std::vector<std::string> run_failing(device::LaneSet& lanes, const plan::Plan& plan, const std::vector<int>& failing,
                                     Recorder& recorder, std::string& thrown) {
  std::vector<std::string> told;
  std::mutex mutex;
  try {
    lanes.run(
        plan,
        [&](int op) {
          recorder.begin(op);
          if (std::ranges::find(failing, op) != failing.end()) {
            throw Error(ErrorKind::kInput, "the test", fmt::format("op {} fails", op));
          }
          recorder.end(op);
        },
        [&](const char* what) {
          const std::lock_guard lock(mutex);
          told.emplace_back(what);
        });
    ADD_FAILURE() << "the run ended well";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInput) << e.what();
    thrown = e.what();
  }
  return told;
}

// Each op of a pipelined plan and of a chain in turn throws: what comes after it is skipped, and the set works again.
void an_error_skips_what_is_left(device::LaneSet& lanes) {
  for (const plan::Plan& plan : {pipelined_plan(3), chain(7)}) {
    for (int failing = 0; failing < std::ssize(plan.ops); ++failing) {
      SCOPED_TRACE(fmt::format("op {} of {}", failing, plan.ops.size()));
      Recorder recorder(plan);
      std::string thrown;
      const auto told = run_failing(lanes, plan, {failing}, recorder, thrown);
      EXPECT_NE(thrown.find(fmt::format("op {} fails", failing)), std::string::npos) << thrown;
      EXPECT_EQ(told, std::vector<std::string>{thrown});
      std::vector<bool> is_lost(plan.ops.size(), false);  // behind the failed op, by lane or by dependency
      is_lost[static_cast<size_t>(failing)] = true;
      for (auto i = static_cast<size_t>(failing) + 1; i < plan.ops.size(); ++i) {
        const plan::PlanOp& op = plan.ops[i];
        for (size_t before = static_cast<size_t>(failing); before < i; ++before) {
          const bool waits =
              op.lane == plan.ops[before].lane || std::ranges::find(op.deps, static_cast<int>(before)) != op.deps.end();
          if (waits && is_lost[before]) is_lost[i] = true;
        }
        EXPECT_FALSE(is_lost[i] && recorder.has_begun(i)) << "op " << i << " ran";
      }
      expect_in_order(lanes, plan);
    }
  }
}

// Ops of all lanes throw, perhaps at the same time: one error is reported, and it is the one that is thrown.
void the_first_of_many_errors_counts(device::LaneSet& lanes) {
  for (int round = 0; round < 50; ++round) {
    const plan::Plan plan = independent(6);
    Recorder recorder(plan);
    std::string thrown;
    const auto told = run_failing(lanes, plan, {0, 1, 2}, recorder, thrown);
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told.front(), thrown);
  }
}

// An op that waits for another rank is woken by on_error, which is called while it still waits.
void on_error_may_wake_other_lanes(device::LaneSet& lanes) {
  const plan::Plan plan = independent(3);
  std::atomic<bool> is_aborted = false;
  EXPECT_THROW(lanes.run(
                   plan,
                   [&](int op) {
                     if (op == 0) throw Error(ErrorKind::kInput, "the test", "op 0 fails");
                     while (!is_aborted) std::this_thread::yield();
                     throw Error(ErrorKind::kAborted, "the test", "woken");
                   },
                   [&](const char* what) {
                     EXPECT_NE(std::string(what).find("op 0 fails"), std::string::npos) << what;
                     is_aborted = true;
                   }),
               Error);
  expect_in_order(lanes, pipelined_plan(2));
}

// Clocks of devices count in steps of half a microsecond.
constexpr int64_t kClockStepNs = 1000;

void the_timeline_has_an_event_for_each_op(device::LaneSet& lanes) {
  for (const plan::Plan& plan : {pipelined_plan(5), chain(4), independent(7)}) {
    expect_in_order(lanes, plan);
    const std::vector<device::TimelineEvent> events = lanes.timeline();
    if (events.empty()) continue;  // times are not recorded
    ASSERT_EQ(events.size(), plan.ops.size());
    for (size_t i = 0; i < events.size(); ++i) {
      const plan::PlanOp& op = plan.ops[i];
      EXPECT_EQ(events[i].name, plan::to_string(op.kind));
      EXPECT_EQ(events[i].lane, op.lane);
      EXPECT_EQ(events[i].stage, op.stage);
      EXPECT_GT(events[i].begin_ns, 0);
      EXPECT_LE(events[i].begin_ns, events[i].end_ns + kClockStepNs);
      for (const int dep : op.deps) {
        EXPECT_LE(events[static_cast<size_t>(dep)].end_ns, events[i].begin_ns + kClockStepNs)
            << "op " << i << " began before op " << dep << " ended";
      }
    }
  }
}

}  // namespace

plan::Plan pipelined_plan(int num_stages) {
  plan::Plan out;
  std::vector<int> combines;
  const auto add = [&out](plan::OpKind kind, plan::Lane lane, int stage, std::vector<int> deps) {
    out.ops.push_back({kind, lane, stage, std::move(deps)});
    return static_cast<int>(out.ops.size()) - 1;
  };
  const int shared = add(plan::OpKind::kShared, plan::Lane::kCompute, -1, {});
  for (int stage = 0; stage < num_stages; ++stage) {
    const int dispatch = add(plan::OpKind::kDispatch, plan::Lane::kDispatch, stage, {});
    const int gate_up = add(plan::OpKind::kGateUp, plan::Lane::kCompute, stage, {dispatch});
    const int down = add(plan::OpKind::kDown, plan::Lane::kCompute, stage, {gate_up});
    const int reduce = add(plan::OpKind::kReduce, plan::Lane::kCompute, stage, {down});
    combines.push_back(add(plan::OpKind::kCombine, plan::Lane::kCombine, stage, {reduce}));
  }
  combines.push_back(shared);
  add(plan::OpKind::kFinish, plan::Lane::kCompute, -1, combines);
  return out;
}

const std::vector<LaneSetCase>& lane_set_cases() {
  static const std::vector<LaneSetCase> all = {
      {"EveryOpRunsOnceAndAfterWhatItNeeds", orders_of_every_kind},
      {"OneLaneAlone", one_lane_alone},
      {"ManyRunsOfDifferentPlans", many_runs},
      {"AnErrorSkipsWhatIsLeft", an_error_skips_what_is_left},
      {"TheFirstOfManyErrorsCounts", the_first_of_many_errors_counts},
      {"OnErrorMayWakeOtherLanes", on_error_may_wake_other_lanes},
      {"TheTimelineHasAnEventForEachOp", the_timeline_has_an_event_for_each_op}};
  return all;
}

}  // namespace eps::test
