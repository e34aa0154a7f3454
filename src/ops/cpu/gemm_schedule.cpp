#include "ops/cpu/gemm_schedule.h"

#include <algorithm>

#include "base/error.h"

namespace eps::ops {
namespace {

// Reading a weight from memory takes a core about as long as multiplying it with this many rows, so a product with
// fewer rows is assumed to cost the same.
constexpr int64_t kRowsWorthAPass = 4;
// Average number of pieces per thread. At the end of a call, threads wait for the last piece; with eight pieces per
// thread, that wait is at most about an eighth of the call.
constexpr double kPiecesPerThread = 8;
// Lower limit for the multiply-adds of a piece, which take about 20 µs. Scheduling smaller pieces would cost more than
// better balance saves.
constexpr double kLeastCost = 500'000;
// Upper limit for the multiply-adds of a piece, which take about 100 ms. Stop requests are polled only between pieces.
constexpr double kMostCost = 4e9;

double cost_of(int64_t rows, int64_t columns, int64_t k) {
  return static_cast<double>(std::max(rows, kRowsWorthAPass)) * static_cast<double>(columns) * static_cast<double>(k);
}

}  // namespace

std::vector<GemmPiece> cut_gemms(std::span<const GemmTask> tasks, int num_threads) {
  double total = 0;
  for (const GemmTask& task : tasks) {
    if (task.m > 0) total += cost_of(task.m, task.weight->out_features(), task.weight->in_features());
  }
  const double even = num_threads > 1 ? std::max(total / (num_threads * kPiecesPerThread), kLeastCost) : total;
  const double target = std::min(even, kMostCost);

  std::vector<GemmPiece> pieces;
  for (int64_t t = 0; t < static_cast<int64_t>(tasks.size()); ++t) {
    const GemmTask& task = tasks[static_cast<size_t>(t)];
    if (task.m == 0) continue;
    const auto grain = task.weight->grain();
    const int64_t n = task.weight->out_features();
    const int64_t row_blocks = divide_up(task.m, grain.rows);
    const int64_t rows = divide_up(task.m, row_blocks);
    const double columns_wanted = target / cost_of(rows, 1, task.weight->in_features());
    int64_t columns = columns_wanted < static_cast<double>(n) ? static_cast<int64_t>(columns_wanted) : n;
    // Slices of about equal width, each a multiple of the grain.
    const int64_t slices = divide_up(n, std::clamp<int64_t>(columns, 1, n));
    columns = divide_up(divide_up(n, slices), grain.columns) * grain.columns;
    for (int64_t n0 = 0; n0 < n; n0 += columns) {
      for (int64_t r0 = 0; r0 < task.m; r0 += rows) {
        pieces.push_back({t, r0, std::min(r0 + rows, task.m), n0, std::min(n0 + columns, n)});
      }
    }
  }
  // Expensive pieces come first, so that the last one, for which the other threads wait, is short. A single thread
  // keeps the original order, in which consecutive pieces use the same weight.
  if (num_threads > 1) {
    const auto cost = [&](const GemmPiece& p) {
      return cost_of(p.row_end - p.row_begin, p.n_end - p.n_begin,
                     tasks[static_cast<size_t>(p.task)].weight->in_features());
    };
    std::stable_sort(pieces.begin(), pieces.end(),
                     [&](const GemmPiece& a, const GemmPiece& b) { return cost(a) > cost(b); });
  }
  return pieces;
}

void run_gemms(std::span<const GemmTask> tasks, ThreadPool& pool) {
  for (const GemmTask& task : tasks) {
    EPS_CHECK_GE(task.m, 0);
    if (task.m == 0) continue;
    EPS_CHECK(task.weight != nullptr && task.x != nullptr && task.y != nullptr, "a GEMM task lacks weight, x or y");
    EPS_CHECK_GE(task.ldx, task.weight->in_features());
    EPS_CHECK_GE(task.ldy, task.weight->out_features());
  }
  const std::vector<GemmPiece> pieces = cut_gemms(tasks, pool.num_threads());
  pool.parallel_for(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    const GemmPiece& piece = pieces[static_cast<size_t>(i)];
    const GemmTask& task = tasks[static_cast<size_t>(piece.task)];
    const size_t x_bytes = size_of(task.weight->input_dtype()) * static_cast<size_t>(piece.row_begin * task.ldx);
    task.weight->run_block(static_cast<const std::byte*>(task.x) + x_bytes, task.ldx,
                           task.y + piece.row_begin * task.ldy, task.ldy, piece.row_end - piece.row_begin,
                           piece.n_begin, piece.n_end);
  });
}

}  // namespace eps::ops
