#include "measure/gemm_timing.h"

#include <algorithm>
#include <map>

#include "base/cpu_features.h"
#include "base/random.h"
#include "measure/fill.h"
#include "measure/fit.h"

namespace eps::measure {
namespace {

constexpr uint64_t kSeed = 1;  // times do not depend on the values

// In a model, the weights of an expert are read from memory, or from the last-level cache if the whole model fits in
// it, but never from a core's own caches, where a few weights would stay if they were used in turn. Of weights that
// exceed the last-level cache only a little, half are found there, so it takes several times its size. More would take
// longer to pack without changing the times, and the upper limit is for machines with huge caches.
constexpr uint64_t kLeastWeightBytes = uint64_t{96} << 20;
constexpr uint64_t kMostWeightBytes = uint64_t{512} << 20;
constexpr uint64_t kCacheMultiple = 4;
constexpr uint64_t kMostWeights = 1024;
constexpr int kMostGroups = 16;  // of the largest call for which group_factor is measured
// A call that takes this long is bound by arithmetic, so beyond it the time is linear in the rows.
constexpr double kLongCallUs = 80000;
constexpr double kQuickLongCallUs = 20000;
constexpr int64_t kFactorRows = 16;  // few rows, for which distributing the cores over groups matters most

std::vector<int64_t> row_counts(const TuneOptions& options) {
  std::vector<int64_t> rows;
  for (int64_t m = 1; m <= options.max_rows; m *= options.quick ? 4 : 2) rows.push_back(m);
  return rows;
}

uint64_t most_weight_bytes(const ops::OpSet& ops) {
  if (ops.device() != nullptr) return kLeastWeightBytes;  // exceeds the cache of every GPU
  return std::clamp<uint64_t>(kCacheMultiple * cpu_features().l3_bytes, kLeastWeightBytes, kMostWeightBytes);
}

// Times a product that is so small that only the call itself takes time.
double measure_call(ops::OpSet& ops, RepeatedTiming& timing, DType weight_dtype) {
  GemmBench bench(ops, {16, 16, 1}, weight_dtype, 1);
  return timing.time_us([&] { bench.run(1, 1); });
}

// A kind of kernel, and the number of groups with which it is timed.
struct GemmArm {
  moe::GemmKind kind;
  std::function<int(int64_t rows)> groups_of;
};

// For each arm, the time in µs that a group of x rows adds to a grouped call, or that a dense call takes in addition to
// call_us. The arms are timed in turn.
std::vector<plan::Curve> measure_curves(GemmBench& bench, RepeatedTiming& timing, const TuneOptions& options,
                                        double call_us, std::span<const GemmArm> arms) {
  std::vector<plan::Curve> curves(arms.size());
  for (const int64_t rows : row_counts(options)) {
    std::vector<std::function<void()>> bodies;
    for (const GemmArm& arm : arms) {
      const int groups = arm.groups_of(rows);
      if (arm.kind == moe::GemmKind::kGrouped) {
        bodies.emplace_back([&bench, rows, groups] { bench.run(rows, groups); });
      } else {
        bodies.emplace_back([&bench, rows, groups] {
          for (int g = 0; g < groups; ++g) bench.run(rows, 1);
        });
      }
    }
    const std::vector<double> times = timing.times_us(bodies);
    for (size_t i = 0; i < arms.size(); ++i) {
      const int groups = arms[i].groups_of(rows);
      const double calls_us = call_us * (arms[i].kind == moe::GemmKind::kGrouped ? 1 : groups);
      // The smallest products take hardly longer than a call. The minimum prevents noise from making them free.
      curves[i].push_back({static_cast<double>(rows), std::max(times[i] - calls_us, 0.05 * times[i]) / groups});
    }
    if (*std::ranges::max_element(times) > (options.quick ? kQuickLongCallUs : kLongCallUs)) break;
  }
  for (plan::Curve& curve : curves) curve = without_falls(curve);
  return curves;
}

plan::Curve measure_alone(GemmBench& bench, RepeatedTiming& timing, const TuneOptions& options, double call_us) {
  const GemmArm alone{moe::GemmKind::kDense, [](int64_t) { return 1; }};
  return measure_curves(bench, timing, options, call_us, std::span(&alone, 1)).front();
}

// A device has enough memory for one weight per group of a call; a host may not.
size_t least_weights(const ops::OpSet& ops, const TuneOptions& options) {
  return ops.device() != nullptr ? static_cast<size_t>(options.groups) : 2;
}

// Measures how an SM budget slows GEMMs down: each kernel with the last expert shape and many rows, with growing
// budgets.
void measure_sm_factors(ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options, DType weight_dtype,
                        plan::GemmProfile& dense, plan::GemmProfile& grouped) {
  const int num_sms = ops.device()->num_sms;
  const int64_t rows = std::min<int64_t>(2048, options.max_rows);
  GemmBench bench(ops, options.expert_shapes.back(), weight_dtype, rows * options.groups, least_weights(ops, options));
  for (plan::GemmProfile* gemm : {&dense, &grouped}) {
    const int groups = gemm->kind == moe::GemmKind::kDense ? 1 : std::min(options.groups, bench.num_weights());
    std::vector<plan::CurvePoint> points;
    for (const int left_out : {num_sms / 2, 40, 32, 24, 16, 8, 0}) {
      if (left_out > num_sms / 2) continue;  // a MIG slice of a GPU has few SMs
      ops.limit_sms(num_sms - left_out);
      points.push_back({static_cast<double>(num_sms - left_out), timing.time_us([&] { bench.run(rows, groups); })});
    }
    ops.limit_sms(0);
    const double all = points.back().y;
    for (plan::CurvePoint& point : points) point.y = std::max(1.0, point.y / all);
    // More SMs never take longer, so the opposite is noise.
    for (size_t i = points.size() - 1; i-- > 0;) points[i].y = std::max(points[i].y, points[i + 1].y);
    gemm->sm_factor = points;
  }
}

plan::Curve median_factors(std::map<int, std::vector<double>>& factors) {
  plan::Curve curve;
  for (auto& [groups, values] : factors) {
    std::ranges::nth_element(values, values.begin() + std::ssize(values) / 2);
    curve.push_back({static_cast<double>(groups), values[values.size() / 2]});
  }
  return curve;
}

}  // namespace

GemmBench::GemmBench(ops::OpSet& ops, const GemmShape& shape, DType weight_dtype, int64_t max_rows,
                     size_t least_weights)
    : ops_(ops), x_memory_(ops.memory()), y_memory_(ops.memory()) {
  Buffer source_memory;
  const MutableTensorView source = source_memory.view(weight_dtype, {shape.n, shape.k});
  fill_normal(source, kSeed);
  const auto elements = static_cast<uint64_t>(shape.n) * static_cast<uint64_t>(shape.k);
  uint64_t wanted = most_weight_bytes(ops) / (elements * size_of(ops.weight_dtype(weight_dtype)));
  if (shape.rotation_bytes > 0) {
    wanted = std::min(wanted, shape.rotation_bytes / (elements * size_of(ops.compute_dtype())));
  }
  const uint64_t limit = ops.device() != nullptr ? static_cast<uint64_t>(ops.device()->most_experts) : kMostWeights;
  const auto count = std::clamp<uint64_t>(wanted, least_weights, std::max<uint64_t>(limit, least_weights));
  const TensorView part = source;
  pool_ = ops.make_weight_pool(static_cast<int64_t>(count), shape.n, shape.k);
  for (size_t i = 0; i < count; ++i) {
    weights_.push_back(ops.pack_linear(std::span(&part, 1), ops::Precision::kCompute, pool_.get()));
  }
  // In host memory, the experts of a layer are in no particular order. On a device, the weights of a call are
  // consecutive in the pool, so their order is kept.
  if (ops.device() == nullptr) {
    SplitMix64 random(kSeed);
    for (size_t i = weights_.size(); i > 1; --i) std::swap(weights_[i - 1], weights_[random.bits() % i]);
  }
  x_ = x_memory_.view(weights_.front()->input_dtype(), {max_rows, shape.k});
  fill_normal(ops, x_, kSeed);
  y_ = y_memory_.view(ops.activation_dtype(), {max_rows, shape.n});
}

void GemmBench::run(int64_t rows, int groups) {
  // The weights of a call must be consecutive as in a layer, because a device cannot group others into one call.
  if (next_ + static_cast<size_t>(groups) > weights_.size()) next_ = 0;
  // Nor are the rows of an expert in a core's own caches, except for the few of a decoded token, so each call uses
  // other rows.
  if (next_row_ + rows * groups > x_.dim(0)) next_row_ = 0;
  std::vector<ops::LinearTask> tasks;
  for (int g = 0; g < groups; ++g) {
    const int64_t end = next_row_ + rows;
    tasks.push_back({weights_[next_++].get(), x_.rows(next_row_, end), y_.rows(next_row_, end)});
    next_row_ = end;
  }
  ops_.linear(tasks);
}

std::vector<plan::GemmProfile> measure_gemms(ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options,
                                             DType weight_dtype,
                                             const std::function<void(const std::string&)>& begin_step) {
  const auto step = [&](moe::GemmKind kind, const GemmShape& shape) {
    begin_step(fmt::format("{} {} GEMM {} x {}", moe::to_string(kind), to_string(weight_dtype), shape.n, shape.k));
  };
  const double call_us = measure_call(ops, timing, weight_dtype);
  plan::GemmProfile dense{moe::GemmKind::kDense, weight_dtype, call_us, {}, {}, {}};
  plan::GemmProfile grouped{moe::GemmKind::kGrouped, weight_dtype, call_us, {}, {}, {}};
  std::map<int, std::vector<double>> factors;
  for (const GemmShape& shape : options.expert_shapes) {
    step(moe::GemmKind::kDense, shape);
    // With the largest number of rows, the host has memory for two groups, a device for all of them.
    const bool on_device = ops.device() != nullptr;
    const int64_t most = on_device ? options.groups : 2;
    const auto factor_rows = kFactorRows * kMostGroups;
    GemmBench bench(ops, shape, weight_dtype, std::max(most * options.max_rows, factor_rows),
                    least_weights(ops, options));
    const auto groups_of = [&](int64_t rows) {
      return rows * options.groups <= bench.max_rows() && bench.num_weights() >= options.groups ? options.groups : 2;
    };
    plan::Curve alone;
    plan::Curve curve;
    if (on_device) {
      step(moe::GemmKind::kGrouped, shape);
      const GemmArm arms[] = {{moe::GemmKind::kDense, groups_of}, {moe::GemmKind::kGrouped, groups_of}};
      std::vector<plan::Curve> curves = measure_curves(bench, timing, options, call_us, arms);
      alone = std::move(curves[0]);
      curve = std::move(curves[1]);
    } else {
      alone = measure_alone(bench, timing, options, call_us);
      step(moe::GemmKind::kGrouped, shape);
      const GemmArm grouped_arm{moe::GemmKind::kGrouped, groups_of};
      curve = measure_curves(bench, timing, options, call_us, std::span(&grouped_arm, 1)).front();
    }
    dense.shapes.push_back({shape.n, shape.k, alone});
    grouped.shapes.push_back({shape.n, shape.k, curve});
    const double one = plan::curve_at(curve, static_cast<double>(kFactorRows), true);
    for (int g = 1; g <= std::min(bench.num_weights(), kMostGroups); g *= 2) {
      const double us = timing.time_us([&] { bench.run(kFactorRows, g); });
      factors[g].push_back(std::max(us - call_us, 0.05 * us) / (g * one));
    }
  }
  grouped.group_factor = median_factors(factors);
  if (ops.device() != nullptr) {
    grouped.fuses_silu_mul = ops.device()->fuses_silu_mul;
    measure_sm_factors(ops, timing, options, weight_dtype, dense, grouped);
  }
  for (const GemmShape& shape : options.shared_shapes) {
    step(moe::GemmKind::kDense, shape);
    GemmBench bench(ops, shape, weight_dtype, options.max_rows);
    dense.shapes.push_back({shape.n, shape.k, measure_alone(bench, timing, options, call_us)});
  }
  return {dense, grouped};
}

}  // namespace eps::measure
