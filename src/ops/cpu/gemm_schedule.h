// How run_gemms cuts products into pieces for the pool.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/cpu/packed_linear.h"

namespace eps {

struct GemmPiece {
  int64_t task;
  int64_t row_begin;
  int64_t row_end;
  int64_t n_begin;
  int64_t n_end;
};

// Pieces that cover each task's [m, N] exactly once, the costly ones first. Pure: the same tasks and threads give the
// same pieces. Tasks with m == 0 have none.
std::vector<GemmPiece> cut_gemms(std::span<const GemmTask> tasks, int num_threads);

}  // namespace eps
