#include "cli/tune_report.h"

#include <fmt/format.h>

#include <array>

#include "base/error.h"
#include "cli/table.h"

namespace eps::cli {
namespace {

constexpr std::array<int64_t, 4> kRows = {1, 16, 128, 1024};

// GFLOP/s of one group of `rows` rows, including the cost of its call.
double gflops(const plan::GemmProfile& gemm, const plan::GemmShapeCurve& shape, int64_t rows) {
  const auto m = static_cast<double>(rows);
  const double us = gemm.call_us + plan::curve_at(shape.us_of_rows, m, true);
  return 2e-3 * m * static_cast<double>(shape.n) * static_cast<double>(shape.k) / us;
}

std::string gemm_table(const plan::HardwareProfile& profile) {
  std::vector<TableColumn> columns = {{"GEMM", 7, false}, {"weights", 7, false}, {"n x k", 11, false}};
  for (const int64_t rows : kRows) columns.push_back({fmt::format("{} row{}", rows, rows == 1 ? "" : "s"), 8, true});
  std::string out = markdown_header(columns);
  for (const plan::GemmProfile& gemm : profile.gemms) {
    for (const plan::GemmShapeCurve& shape : gemm.shapes) {
      std::vector<std::string> cells = {std::string(moe::to_string(gemm.kind)),
                                        std::string(to_string(gemm.weight_dtype)),
                                        fmt::format("{} x {}", shape.n, shape.k)};
      for (const int64_t rows : kRows) cells.push_back(fmt::format("{:.1f}", gflops(gemm, shape, rows)));
      out += markdown_row(columns, cells);
    }
  }
  return out;
}

}  // namespace

std::string describe_profile(const plan::HardwareProfile& profile) {
  std::string out = fmt::format("{}: {}\n\nGFLOP/s of one group, by its rows\n{}\n", printable(profile.name),
                                printable(profile.device), gemm_table(profile));
  for (const plan::LinkPoint& link : profile.links) {
    out += fmt::format("link       {:.2f} GB/s each way and rank, {:.1f} µs a message\n", link.gbps, link.alpha_us);
  }
  out += fmt::format("hand-over  {:.1f} µs from lane to lane\n", profile.handoff_us);
  if (!profile.links.empty()) {
    out += fmt::format(
        "contention compute takes {:.2f} times as long beside messages, messages take {:.2f} times as long\n",
        1 + profile.contention.compute, 1 + profile.contention.comm);
  }
  out += fmt::format("memory     {:.1f} GB/s, {:.1f} GB of each rank\n", profile.memory_gbps, profile.memory_gb);
  out += fmt::format("attention  {:.1f} GFLOP/s\n", 1e3 * profile.attention_tflops);
  std::string ops;
  for (const auto& [name, cost] : profile.ops) {
    // Of a curve, the rate at its end: that of rows which exceed the caches, if the measurement went that far.
    const plan::Curve& curve = cost.us_of_bytes;
    const double gbps = curve.empty() ? cost.gbps : curve.back().x * 1e-3 / curve.back().y;
    ops += fmt::format("{}{} {:.1f}", ops.empty() ? "" : ", ", name, gbps);
  }
  return out + fmt::format("ops        GB/s: {}\n", ops);
}

}  // namespace eps::cli
