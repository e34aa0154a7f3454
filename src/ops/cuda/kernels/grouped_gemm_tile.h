// What the choice of a grouped GEMM's tile goes by.
#pragma once

#include "ops/cuda/kernels/grouped_gemm.h"

namespace eps::cuda {

// SMs of the current device.
int device_sms();

// How long a call takes with a tile, as far as the tile decides it: rounds of all workers times the columns of a round.
double grouped_rounds_cost(std::span<const int64_t> rows_per_group, int64_t n, GroupedTile tile, int num_sms);

}  // namespace eps::cuda
