#include "plan/layer_cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "plan/op_table.h"

namespace eps::plan {
namespace {

constexpr int kOctaves = 26;  // 2^5 … 2^31 rows

const GemmShapeCurve& nearest_shape(const GemmProfile& gemm, int64_t n, int64_t k) {
  const GemmShapeCurve* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const GemmShapeCurve& shape : gemm.shapes) {
    const double distance = std::abs(std::log(static_cast<double>(shape.n) / static_cast<double>(n))) +
                            std::abs(std::log(static_cast<double>(shape.k) / static_cast<double>(k)));
    if (distance < least) {
      least = distance;
      best = &shape;
    }
  }
  EPS_CHECK(best != nullptr, "the GEMM profile has no shapes");
  return *best;
}

OpCost find_op(const HardwareProfile& profile, std::string_view name) {
  const auto it = profile.ops.find(std::string(name));
  return it == profile.ops.end() ? OpCost{} : it->second;
}

}  // namespace

RowTable::RowTable(const std::function<double(double rows)>& us) {
  us_.reserve(kExact + kOctaves * 16 + 1);
  us_.push_back(0);
  for (int rows = 1; rows < kExact; ++rows) us_.push_back(us(rows));
  for (int step = 0; step <= kOctaves * 16; ++step) us_.push_back(us(static_cast<double>(knot(step))));
}

RowTable::RowTable(const GemmProfile& gemm, int64_t n, int64_t k, const std::function<double(double rows)>& others) {
  const GemmShapeCurve& shape = nearest_shape(gemm, n, k);
  const double scale =
      static_cast<double>(n) * static_cast<double>(k) / (static_cast<double>(shape.n) * static_cast<double>(shape.k));
  *this = RowTable(
      [&](double rows) { return scale * curve_at(shape.us_of_rows, rows, true) + (others ? others(rows) : 0.0); });
}

// The table is linear between its points, so the time per row is monotonic there and has its minimum at a point.
double RowTable::least_per_row() const {
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 1; i < us_.size(); ++i) {
    const int64_t rows = i < kExact ? static_cast<int64_t>(i) : knot(static_cast<int>(i) - kExact);
    least = std::min(least, us_[i] / static_cast<double>(rows));
  }
  return least;
}

LayerCost::LayerCost(const HardwareProfile& profile, const MoeShape& shape, int tp, std::optional<moe::GemmKind> only,
                     bool messages_spread)
    : profile_(&profile),
      only_(only),
      shape_(shape),
      act_bytes_(static_cast<double>(size_of(shape.act_dtype))),
      dense_(&find_gemm(profile, moe::GemmKind::kDense, shape.weight_dtype)),
      grouped_(&find_gemm(profile, moe::GemmKind::kGrouped, shape.weight_dtype)),
      dense_call_us_(dense_->call_us),
      grouped_call_us_(grouped_->call_us),
      silu_mul_(find_op(profile, "silu_mul")),
      pack_(messages_spread ? OpCost{} : find_op(profile, "pack")),
      quantize_(find_op(profile, "quantize")) {
  shape_.inner = std::max<int64_t>(1, shape.inner / tp);
  shape_.shared_inner = shape.shared_inner / tp;
  std::function<double(double)> silu_us;
  if (grouped_->fuses_silu_mul) {
    // Without the fixed part: the dense calls of a stage share one op.
    const OpCost of_rows{0, silu_mul_.gbps, silu_mul_.us_of_bytes};
    const double row_bytes = 3.0 * static_cast<double>(shape_.inner) * act_bytes_;
    const double line_us = of_rows.us_of_bytes.empty() ? time_us(of_rows, row_bytes) : 0;
    silu_us = [=](double rows) {
      return of_rows.us_of_bytes.empty() ? line_us * rows : time_us(of_rows, row_bytes * rows);
    };
  }
  gate_up_ = {RowTable(*dense_, 2 * shape_.inner, shape_.hidden, silu_us),
              RowTable(*grouped_, 2 * shape_.inner, shape_.hidden)};
  down_ = {RowTable(*dense_, shape_.hidden, shape_.inner), RowTable(*grouped_, shape_.hidden, shape_.inner)};
  if (shape_.shared_inner > 0) {
    shared_gate_up_ = RowTable(*dense_, 2 * shape_.shared_inner, shape_.hidden);
    shared_down_ = RowTable(*dense_, shape_.hidden, shape_.shared_inner);
  }
  // Takes the fastest link between nodes. Messages within a node occupy SMs in any case, so a slower link would not
  // save any.
  for (const LinkPoint& link : profile.inter_links) {
    if (link.gbps > far_link_.gbps) far_link_ = link;
  }
  set_memory_costs(messages_spread);
  constexpr int kMostGroups = 512;
  for (int g = 0; g <= kMostGroups; ++g) {
    group_factor_.push_back(grouped_->group_factor.empty() ? 1.0 : curve_at(grouped_->group_factor, g, false));
  }
}

void LayerCost::set_memory_costs(bool messages_spread) {
  double stage_us_of_one_row = 0;
  std::vector<const RowCost*> curves;
  for (const OpRow& row : kOpTable) {
    if (row.memory.cost.empty()) continue;
    RowCost& op = memory_[static_cast<size_t>(row.kind)];
    op.cost = find_op(*profile_, row.memory.cost);
    op.bytes_per_row =
        row.memory.passes * static_cast<double>(row.memory.inner ? shape_.inner : shape_.hidden) * act_bytes_;
    // If the grouped kernel fuses silu_mul, it is not a separate op; the tables of the dense kernel include its time.
    if (row.kind == OpKind::kSiluMul && grouped_->fuses_silu_mul) op.cost = {};
    if (row.kind == OpKind::kGateUp && messages_spread) op.cost = {};
    const bool is_curve = !op.cost.us_of_bytes.empty();
    if (is_curve) op.table = RowTable([&op](double rows) { return time_us(op.cost, op.bytes_per_row * rows); });
    if (!row.of_stage) continue;
    if (is_curve) {
      curves.push_back(&op);
    } else {
      stage_fixed_us_ += op.cost.fixed_us;
      stage_us_of_one_row += memory_us(row.kind, 1);
    }
  }
  stage_us_per_row_ = stage_us_of_one_row - stage_fixed_us_;
  if (curves.empty()) return;
  // From the costs and not from their tables, which end at the last point of this one.
  stage_table_ = RowTable([&curves](double rows) {
    double us = 0;
    for (const RowCost* op : curves) us += time_us(op->cost, op->bytes_per_row * rows);
    return us;
  });
  stage_table_us_per_row_ = stage_table_.least_per_row();
}

// `missing` is the fraction of the messages' SMs that compute occupies as well. 0: messages have all their SMs; 1:
// none.
ClockRates LayerCost::rates(double missing) const {
  const Contention& c = profile_->contention;
  // Slowdowns in profiles are not negative, but the difference of two large ones could be after rounding, which would
  // give a rate above 1 or an infinite one.
  const auto rate = [missing](double capped, double uncapped) {
    return 1 / (1 + std::max(0.0, capped + missing * (uncapped - capped)));
  };
  return {rate(c.compute, c.uncapped_compute), rate(c.comm, c.uncapped_comm)};
}

ClockRates mix_rates(const SmFactors& factors, double dense, double grouped) {
  const ClockRates& d = factors.dense_rates;
  const ClockRates& g = factors.grouped_rates;
  const double part = dense + grouped > 0 ? dense / (dense + grouped) : 0.5;
  // Slowdowns, not rates, are averaged, because they are proportional to time.
  const auto mix = [part](double a, double b) { return 1 / (part / a + (1 - part) / b); };
  return {mix(d.compute_beside_comm, g.compute_beside_comm), mix(d.comm_beside_compute, g.comm_beside_compute)};
}

SmFactors LayerCost::sm_factors(int sms, int comm_sms) const {
  const auto factor = [sms](const GemmProfile& gemm) {
    return sms == 0 || gemm.sm_factor.empty() ? 1.0 : curve_at(gemm.sm_factor, sms, false);
  };
  // A kernel without SM factors cannot be limited and uses every SM, whatever the budget.
  const auto missing = [&](const GemmProfile& gemm) {
    const int num_sms = profile_->num_sms;
    if (num_sms == 0) return 0.0;
    if (sms == 0 || sms >= num_sms || gemm.sm_factor.empty()) return 1.0;
    return comm_sms == 0 ? 0.0 : std::clamp(static_cast<double>(sms + comm_sms - num_sms) / comm_sms, 0.0, 1.0);
  };
  return {factor(*dense_), factor(*grouped_), rates(missing(*dense_)), rates(missing(*grouped_)), only_};
}

moe::GemmKind LayerCost::better_kernel(const StageGemm& gemm, const SmFactors& factors) const {
  const bool dense = factors.prefers_dense(gemm_us(moe::GemmKind::kDense, gemm, factors),
                                           gemm_us(moe::GemmKind::kGrouped, gemm, factors));
  return dense ? moe::GemmKind::kDense : moe::GemmKind::kGrouped;
}

double LayerCost::stage_overhead_us() const { return stage_fixed_us_ + 2 * std::min(dense_call_us_, grouped_call_us_); }

double LayerCost::least_group_factor() const {
  return std::min(1.0, *std::min_element(group_factor_.begin(), group_factor_.end()));
}

double LayerCost::shared_us(int64_t tokens, const SmFactors& factors) const {
  if (shape_.shared_inner == 0 || tokens == 0) return 0;
  const double gemms = 2 * dense_->call_us + shared_gate_up_(tokens) + shared_down_(tokens);
  return factors.dense * gemms + shared_silu_us(tokens);
}

double LayerCost::shared_silu_us(int64_t tokens) const {
  return time_us(silu_mul_, 3.0 * static_cast<double>(tokens * shape_.shared_inner) * act_bytes_);
}

LayerCost::LeastShared LayerCost::least_shared(int64_t tokens) const {
  if (shape_.shared_inner == 0 || tokens == 0) return {};
  const auto part = [this](int64_t rows) { return shared_gate_up_(rows) + shared_down_(rows); };
  double least = part(tokens);
  // The sum of two piecewise linear curves has its minimum at a point of one of them, so only those points are checked.
  for (int64_t rows = 1; rows < std::min(RowTable::knot(0), tokens); ++rows) {
    least = std::min(least, part(rows) + part(tokens - rows));
  }
  for (int step = 0; RowTable::knot(step) < tokens; ++step) {
    const int64_t rows = RowTable::knot(step);
    least = std::min(least, part(rows) + part(tokens - rows));
  }
  // Two parts together take at least as long as one on a line, but not necessarily on a curve.
  return {2 * dense_call_us_ + least, silu_mul_.us_of_bytes.empty() ? shared_silu_us(tokens) : 0};
}

double LayerCost::pack_us(double rows, DType wire) const {
  if (rows <= 0) return 0;
  if (wire == DType::kF8E4M3) {
    return time_us(quantize_, 2.0 * rows * static_cast<double>(shape_.hidden) * act_bytes_);
  }
  return time_us(pack_, 2.0 * rows * static_cast<double>(wire_row_bytes(wire, shape_.hidden)));
}

double LayerCost::message_us(const LinkPoint& link, double near_bytes, double far_bytes) const {
  const LinkPoint& far = far_link_.gbps > 0 ? far_link_ : link;
  const double near_us = near_bytes <= 0 ? 0 : link.alpha_us + near_bytes * 1e-3 / link.gbps;
  const double far_us = far_bytes <= 0 ? 0 : far.alpha_us + far_bytes * 1e-3 / far.gbps;
  return std::max(near_us, far_us);
}

double LayerCost::scatter_us(const LinkPoint& link, int64_t tokens, int num_ranks, DType wire) const {
  if (num_ranks == 1 || tokens == 0) return 0;
  const double bytes = static_cast<double>(tokens) * static_cast<double>(wire_row_bytes(wire, shape_.hidden));
  const double each = bytes / num_ranks * (num_ranks - 1);
  // In a ring over several nodes, the slowest link determines the speed of all steps.
  const bool far = num_ranks > profile_->ranks_per_node && far_link_.gbps > 0;
  return link.alpha_us + each * 1e-3 / (far ? std::min(link.gbps, far_link_.gbps) : link.gbps);
}

}  // namespace eps::plan
