// How run_gemms cuts products into pieces for the pool.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/cpu/packed_linear.h"

namespace eps::ops {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct GemmPiece {
  int64_t task;
  int64_t row_begin;
  int64_t row_end;
  int64_t n_begin;
  int64_t n_end;
};

// Returns pieces that cover each task's [m, N] exactly once, the most expensive ones first. A pure function of the
// tasks and the number of threads. Tasks with m == 0 have no pieces.
std::vector<GemmPiece> cut_gemms(std::span<const GemmTask> tasks, int num_threads);

}  // namespace eps::ops
