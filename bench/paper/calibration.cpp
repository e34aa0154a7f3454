#include "calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "paper_data.h"

namespace eps::paper {
namespace {

constexpr int64_t kHidden = 5120;
constexpr int kExperts = 20;          // of a GPU
constexpr double kPeakTflops = 1979;  // H800 SXM data sheet: 8-bit, dense
constexpr double kMemoryGbps = 3350;
constexpr std::array<double, 9> kRows = {8, 32, 64, 128, 256, 512, 1024, 2048, 4096};  // as the bundled profiles

// Of gate+up: what streaming one expert's weights takes, and a row at the tensor cores' peak.
double weights_us(int64_t inner) { return 2.0 * static_cast<double>(inner * kHidden) * 1e-3 / kMemoryGbps; }
double least_row_us(int64_t inner) { return 4.0 * static_cast<double>(inner * kHidden) * 1e-6 / kPeakTflops; }

// The GEMMs that are fitted, in the order of their numbers: a group of gate+up takes fixed + rows · slope, and no less
// than its weights do.
struct CurveSpec {
  moe::GemmKind kind;
  int64_t inner;
};
constexpr std::array<CurveSpec, 4> kCurves = {{{moe::GemmKind::kGrouped, 1536},
                                               {moe::GemmKind::kGrouped, 15360},
                                               {moe::GemmKind::kDense, 1536},
                                               {moe::GemmKind::kDense, 15360}}};

double huber(double x) {
  constexpr double kKnee = 0.05;
  const double a = std::abs(x);
  return a <= kKnee ? a * a : kKnee * (2 * a - kKnee);
}

}  // namespace

std::vector<Parameter> parameters() {
  std::vector<Parameter> out = {
      {"links[16].gbps", 120, 20, 200},
      {"links[16].alpha_us", 15, 2, 100},
      {"contention.compute", 0.02, 1e-3, 0.5},
      {"contention.comm", 0.05, 1e-3, 2},
      {"contention.uncapped_compute", 0.1, 1e-3, 1},
      {"contention.uncapped_comm", 0.5, 1e-3, 10},
      {"handoff_us", 4, 0.5, 60},
      {"gemms.grouped.fp8.call_us", 10, 1, 100},
      {"gemms.dense.fp8.call_us", 5, 1, 60},
  };
  for (const int sms : {124, 116, 108, 100, 92}) {
    out.push_back({fmt::format("gemms.grouped.fp8.sm_factor[{}] over the one before", sms), 0.01, 1e-4, 0.3});
  }
  for (const CurveSpec& curve : kCurves) {
    const std::string name = fmt::format("gemms.{}.fp8 n={}", moe::to_string(curve.kind), 2 * curve.inner);
    const double weights = weights_us(curve.inner);
    out.push_back({name + " fixed_us", 0.5 * weights, 0.01 * weights, 5 * weights});
    const double row = least_row_us(curve.inner);
    out.push_back({name + " us_per_row", 3 * row, row, 20 * row});
  }
  return out;
}

plan::HardwareProfile make_profile(const plan::HardwareProfile& base, const std::vector<double>& values) {
  plan::HardwareProfile profile = base;
  size_t next = 0;
  const auto take = [&] { return values.at(next++); };
  const double gbps = take();
  profile.links = {{16, gbps, take()}};
  profile.contention.compute = take();
  profile.contention.comm = take();
  profile.contention.uncapped_compute = take();
  profile.contention.uncapped_comm = take();
  profile.handoff_us = take();
  plan::GemmProfile grouped{moe::GemmKind::kGrouped, DType::kF8E4M3, take(), {}, {}, {}};
  plan::GemmProfile dense{moe::GemmKind::kDense, DType::kF8E4M3, take(), {}, {}, {}};
  double factor = 1;
  grouped.sm_factor = {{132, 1}};
  for (const int sms : {124, 116, 108, 100, 92}) {
    factor += take();
    grouped.sm_factor.insert(grouped.sm_factor.begin(), {static_cast<double>(sms), factor});
  }
  for (const CurveSpec& curve : kCurves) {
    plan::GemmShapeCurve gate_up{2 * curve.inner, kHidden, {}};
    plan::GemmShapeCurve down{
        kHidden, curve.inner, {}};  // half the work: at the same rate, as the paper has only their sum
    const double fixed = take();
    const double slope = take();
    for (const double rows : kRows) {
      const double us = std::max(weights_us(curve.inner), fixed + rows * slope);
      gate_up.us_of_rows.push_back({rows, us});
      down.us_of_rows.push_back({rows, us / 2});
    }
    plan::GemmProfile& gemm = curve.kind == moe::GemmKind::kDense ? dense : grouped;
    gemm.shapes.push_back(gate_up);
    gemm.shapes.push_back(down);
  }
  EPS_CHECK_EQ(next, values.size());
  std::erase_if(profile.gemms, [](const plan::GemmProfile& gemm) { return gemm.weight_dtype == DType::kF8E4M3; });
  profile.gemms.push_back(dense);
  profile.gemms.push_back(grouped);
  profile.name = "h800_paper";
  profile.origin = "fitted to tables 5 and 6 of the EPS-MoE paper; the rest published figures";
  profile.made = "epsmoe_paper_fit";
  const std::string fitted = "fitted to tables 5 and 6 of arXiv 2410.12247 (docs/paper.md)";
  for (const char* key : {"links", "contention", "handoff_us"}) profile.sources[key] = fitted;
  for (const char* kind : {"dense", "grouped"}) {
    const std::string key = fmt::format("gemms.{}.fp8", kind);
    std::erase_if(profile.sources, [&key](const auto& source) { return source.first.starts_with(key); });
    profile.sources[key] = fitted + "; floors: weights at the data sheet's memory rate";
  }
  return profile;
}

FitCells::FitCells(const Reading& reading) {
  for (size_t i = 0; i < kT5Tokens.size(); ++i) {
    for (size_t j = 0; j < kT5Inner.size(); ++j) {
      for (const int fp8 : {0, 1}) {
        table5_[i][j][static_cast<size_t>(fp8)] =
            layer_problem(reading, {.inner = kT5Inner[j]}, kT5Tokens[i], fp8 == 1);
      }
    }
  }
  for (const T6Row& row : table6()) table6_.push_back(layer_problem(reading, {}, row.m, false));
}

std::vector<FittedCell> FitCells::predict(const plan::HardwareProfile& profile) const {
  std::vector<FittedCell> out;
  for (const T5Row& row : table5()) {
    for (size_t i = 0; i < kT5Tokens.size(); ++i) {
      for (size_t j = 0; j < kT5Inner.size(); ++j) {
        const plan::MoeProblem& problem = table5_[i][j][row.fp8_wire ? 1 : 0];
        const double us = layer_us(profile, problem, {row.num_stages, row.kernel, row.gemm_sms});
        out.push_back({5, row.id, kT5Tokens[i], kT5Inner[j], row.gemm_sms, row.ms[i][j], us * 1e-3,
                       !is_t5_outlier(row.id, kT5Tokens[i], kT5Inner[j])});
      }
    }
  }
  for (size_t i = 0; i < table6_.size(); ++i) {
    const T6Row& row = table6()[i];
    for (size_t s = 0; s < kT6Sms.size(); ++s) {
      // The table does not say its stages; table 5's five are the paper's choice for this layer.
      const double us = layer_us(profile, table6_[i], {5, moe::GemmKind::kGrouped, kT6Sms[s]});
      out.push_back({6, static_cast<int>(i), row.m, 1536, kT6Sms[s], row.ms[s], us * 1e-3, true});
    }
  }
  return out;
}

double time_error(const FittedCell& cell) { return std::log(cell.ours_ms / cell.paper_ms); }

double ratio_error(const std::vector<FittedCell>& cells, const FittedCell& cell) {
  const auto to = std::ranges::find_if(cells, [&](const FittedCell& c) {
    if (c.table != cell.table || c.m != cell.m || c.inner != cell.inner) return false;
    return c.table == 5 ? c.row == 0 : c.gemm_sms == 116;
  });
  EPS_CHECK(to != cells.end());
  return time_error(cell) - time_error(*to);
}

double loss_of(const std::vector<FittedCell>& cells, Weighing weighing) {
  double sum = 0;
  int n = 0;
  for (const FittedCell& cell : cells) {
    if (!cell.counts) continue;
    // Ratios alone leave every column's scale open, so times keep a small part.
    const double times = huber(time_error(cell));
    sum += weighing == Weighing::kTimes ? times : 0.1 * times + 0.9 * huber(ratio_error(cells, cell));
    ++n;
  }
  return sum / n;
}

}  // namespace eps::paper
