// Computes the times of one layer's ops from the profile's curves. Internal to planning and simulation.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "plan/profile.h"
#include "plan/virtual_clock.h"

namespace eps::plan {

// A table of times in µs by number of rows, with a lookup of a few nanoseconds. It is exact up to 32 rows; above, it
// has 16 points per octave with linear interpolation.
class RowTable {
 public:
  RowTable() = default;
  explicit RowTable(const std::function<double(double rows)>& us);
  // `others`, if given, is added.
  RowTable(const GemmProfile& gemm, int64_t n, int64_t k, const std::function<double(double rows)>& others = {});

  bool empty() const { return us_.empty(); }
  // The minimum over the numbers of rows of the time per row.
  double least_per_row() const;

  // The number of rows at each point of the table from 32 on; the table is linear between these points.
  static int64_t knot(int step) { return (int64_t{16} + step % 16) << (step / 16 + 1); }

  // Edge  0 rows take no time
  double operator()(int64_t rows) const {
    if (rows < kExact) return us_[static_cast<size_t>(rows)];
    const int octave = 63 - __builtin_clzll(static_cast<uint64_t>(rows));  // 5 and up
    const int shift = octave - 4;
    const auto at = static_cast<size_t>(kExact + (octave - 5) * 16 + ((rows >> shift) & 15));
    const double part =
        static_cast<double>(rows & ((int64_t{1} << shift) - 1)) / static_cast<double>(int64_t{1} << shift);
    return us_[at] + part * (us_[at + 1] - us_[at]);
  }

 private:
  static constexpr int kExact = 32;
  std::vector<double> us_;
};

// The tables of one projection of the experts, for both kernels.
struct ProjectionTables {
  RowTable dense, grouped;
};

// The row times of one projection by kernel, added up over the experts of a stage.
struct StageGemm {
  double dense_us = 0;
  double grouped_us = 0;
  double least_grouped_us = 0;  // the same if no expert had more than kGroupFactorRows rows
  int groups = 0;               // experts with rows
};

// Time factors of the kernels under an SM budget, and the rates at which a kernel and a concurrent message run.
struct SmFactors {
  double dense = 1;
  double grouped = 1;
  ClockRates dense_rates, grouped_rates;
  std::optional<moe::GemmKind> only;  // the only kernel that experts may use

  // Whether experts use dense GEMMs, given the times of both kernels.
  bool prefers_dense(double dense_us, double grouped_us) const {
    return only ? *only == moe::GemmKind::kDense : dense_us <= grouped_us;
  }
};

// Average rates of compute that spends `dense` µs in dense and `grouped` µs in grouped GEMMs.
ClockRates mix_rates(const SmFactors& factors, double dense, double grouped);

// The costs of one layer of `shape`, whose experts and shared experts have their inner size divided by `tp`. If `only`
// is given, experts use that kernel.
class LayerCost {
 public:
  // `messages_spread`: messages write rows where the GEMMs read them, so that nothing is packed or
  // gathered.
  LayerCost(const HardwareProfile& profile, const MoeShape& shape, int tp, std::optional<moe::GemmKind> only = {},
            bool messages_spread = false);

  const ProjectionTables& gate_up() const { return gate_up_; }
  const ProjectionTables& down() const { return down_; }

  // Returns the factors of the kernels under a budget of `sms` SMs (0: all) while messages use `comm_sms`. Where the
  // budgets overlap, kernels and messages slow each other down in proportion to the SMs that both use.
  SmFactors sm_factors(int sms, int comm_sms = 0) const;
  // The time of a stage's projection with one kernel, and with the faster one.
  double gemm_us(moe::GemmKind kind, const StageGemm& gemm, const SmFactors& factors) const {
    if (gemm.groups == 0) return 0;
    if (kind == moe::GemmKind::kDense) return factors.dense * (gemm.groups * dense_call_us_ + gemm.dense_us);
    const auto groups = std::min(static_cast<size_t>(gemm.groups), group_factor_.size() - 1);
    return factors.grouped * (grouped_call_us_ + grouped_rows_us(group_factor_[groups], gemm));
  }
  moe::GemmKind better_kernel(const StageGemm& gemm, const SmFactors& factors) const;

  double least_group_factor() const;  // at most 1

  // The time in which an op reads and writes rows (OpRow::memory), without its GEMM and messages.
  double memory_us(OpKind kind, int64_t rows) const {
    const RowCost& op = memory_[static_cast<size_t>(kind)];
    if (rows == 0) return 0;
    return op.table.empty() ? time_us(op.cost, op.bytes_per_row * static_cast<double>(rows)) : op.table(rows);
  }
  // The same, added up over all ops of a stage.
  double stage_memory_us(int64_t rows) const {
    if (rows == 0) return 0;
    const double lines_us = stage_fixed_us_ + static_cast<double>(rows) * stage_us_per_row_;
    return stage_table_.empty() ? lines_us : lines_us + stage_table_(rows);
  }
  // The minimum over all ways to divide the rows into one or more stages. In measured curves, stages whose rows fit in
  // a cache may be faster than one with all rows.
  double least_stage_memory_us(int64_t rows) const {
    if (rows == 0) return 0;
    return stage_fixed_us_ + static_cast<double>(rows) * (stage_us_per_row_ + stage_table_us_per_row_);
  }
  // The minimum cost of an additional stage on a rank: its ops without rows, and two GEMM calls.
  double stage_overhead_us() const;
  double shared_us(int64_t tokens, const SmFactors& factors) const;  // all three steps; 0 without shared experts
  // The minimum over all ways to split the tokens in two, or not to split them. In measured curves, two calls may be
  // faster than one.
  struct LeastShared {
    double gemms_us = 0, silu_us = 0;
    double us(const SmFactors& factors) const { return factors.dense * gemms_us + silu_us; }
  };
  LeastShared least_shared(int64_t tokens) const;
  double handoff_us() const { return profile_->handoff_us; }
  // The time the sending rank takes to prepare rows for a message.
  double pack_us(double rows, DType wire) const;
  // The time of one message of a rank. The bytes within the node and beyond it are each the larger of those sent and
  // received.
  double message_us(const LinkPoint& link, double near_bytes, double far_bytes) const;
  // The time of one pass around the ring: a reduce-scatter or all-gather of `tokens` rows over `num_ranks` ranks.
  double scatter_us(const LinkPoint& link, int64_t tokens, int num_ranks, DType wire) const;

  const MoeShape& shape() const { return shape_; }
  const HardwareProfile& profile() const { return *profile_; }

 private:
  // Few groups with few rows cannot use the whole device, which makes them slower than their share of many groups; with
  // more rows they can.
  static double grouped_rows_us(double factor, const StageGemm& gemm) {
    return factor <= 1 ? factor * gemm.grouped_us : std::max(gemm.grouped_us, factor * gemm.least_grouped_us);
  }

  // OpRow::memory, with this profile's cost and this shape's width applied.
  struct RowCost {
    OpCost cost;
    double bytes_per_row = 0;
    RowTable table;  // empty unless the cost is a curve
  };

  void set_memory_costs(bool messages_spread);
  double shared_silu_us(int64_t tokens) const;

  ClockRates rates(double missing) const;

  const HardwareProfile* profile_;
  std::optional<moe::GemmKind> only_;
  MoeShape shape_;
  double act_bytes_;
  const GemmProfile* dense_;
  const GemmProfile* grouped_;
  double dense_call_us_, grouped_call_us_;
  std::array<RowCost, kNumOpKinds> memory_;
  // Totals over the ops of a stage: those whose cost is a line, and those whose cost is a curve.
  double stage_fixed_us_ = 0, stage_us_per_row_ = 0;
  RowTable stage_table_;
  double stage_table_us_per_row_ = 0;  // the least
  ProjectionTables gate_up_, down_;
  RowTable shared_gate_up_, shared_down_;
  OpCost silu_mul_, pack_, quantize_;
  LinkPoint far_link_;                // gbps 0: none
  std::vector<double> group_factor_;  // indexed by the number of groups
};

}  // namespace eps::plan
