#include "measure/expert_gemms.h"

#include <algorithm>

#include "base/clock.h"
#include "measure/fill.h"

namespace eps::measure {

ExpertGemms::ExpertGemms(ops::OpSet& ops, const model::LayerWeights& layer, int64_t hidden, int64_t inner, int64_t rows,
                         uint64_t seed, StopToken stop)
    : ops_(ops),
      layer_(layer),
      x_memory_(ops.memory()),
      gate_up_memory_(ops.memory()),
      act_memory_(ops.memory()),
      out_memory_(ops.memory()) {
  x_ = x_memory_.view(ops.compute_dtype(), {rows, hidden});
  fill_normal(ops, x_, seed, stop);
  gate_up_ = gate_up_memory_.view(ops.activation_dtype(), {rows, 2 * inner});
  act_ = act_memory_.view(ops.compute_dtype(), {rows, inner});
  out_ = out_memory_.view(ops.activation_dtype(), {rows, hidden});
}

ExpertGemms::Tasks ExpertGemms::make_tasks(const std::vector<int64_t>& rows) const {
  Tasks out;
  for (size_t e = 0; e < rows.size(); ++e) {
    if (rows[e] == 0) continue;
    const int64_t begin = out.num_rows;
    const int64_t end = begin + rows[e];
    out.up.push_back({layer_.experts[e].gate_up.get(), x_.rows(begin, end), gate_up_.rows(begin, end)});
    out.down.push_back({layer_.experts[e].down.get(), act_.rows(begin, end), out_.rows(begin, end)});
    out.num_rows = end;
  }
  return out;
}

std::pair<double, double> ExpertGemms::time(const std::vector<int64_t>& rows, moe::GemmKind kind) {
  const Tasks tasks = make_tasks(rows);
  if (ops_.device() != nullptr) {
    const double up_us = time_us([&] { run_up(tasks, kind); });
    return {up_us, time_us([&] { run(tasks.down, kind); })};
  }
  const double up_us = time_us([&] { run(tasks.up, kind); });
  ops_.silu_mul(gate_up_, act_);
  return {up_us, time_us([&] { run(tasks.down, kind); })};
}

double ExpertGemms::time_calls_alone(const std::vector<int64_t>& rows) {
  const Tasks tasks = make_tasks(rows);
  return time_us([&] {
    run(tasks.up, moe::GemmKind::kDense);
    run(tasks.down, moe::GemmKind::kDense);
  });
}

void ExpertGemms::run(std::span<const ops::LinearTask> tasks, moe::GemmKind kind) {
  if (kind == moe::GemmKind::kGrouped) return ops_.linear(tasks);
  for (const ops::LinearTask& task : tasks) ops_.linear(std::span(&task, 1));
}

void ExpertGemms::run_up(const Tasks& tasks, moe::GemmKind kind) {
  const MutableTensorView gate_up = gate_up_.rows(0, tasks.num_rows);
  const MutableTensorView act = act_.rows(0, tasks.num_rows);
  if (kind == moe::GemmKind::kGrouped) return ops_.linear_silu_mul(tasks.up, gate_up, act);
  run(tasks.up, kind);
  ops_.silu_mul(gate_up, act);
}

double ExpertGemms::time_us(const std::function<void()>& call) const {
  const auto many = [&](int calls) {
    const int64_t begin = now_ns();
    for (int i = 0; i < calls; ++i) call();
    ops_.wait();
    return static_cast<double>(now_ns() - begin) * 1e-3 / calls;
  };
  if (ops_.device() == nullptr) return many(1);
  constexpr double kSampleUs = 2000;
  ops_.wait();
  return many(static_cast<int>(std::clamp(kSampleUs / many(1), 1.0, 100.0)));
}

}  // namespace eps::measure
