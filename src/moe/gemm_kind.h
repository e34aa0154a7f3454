// The two ways to run a stage's expert GEMMs.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace eps {

enum class GemmKind : uint8_t {
  kDense,    // one GEMM per expert, one after the other
  kGrouped,  // all experts of the stage in one call
};

std::string_view to_string(GemmKind kind);

// The kernel for a stage whose experts have these rows on one rank. On the CPU a grouped call distributes the cores
// over the experts and so is never slower than the dense loop. With one busy expert the two are the same call, which is
// reported as dense.
GemmKind choose_gemm_kind(std::span<const int64_t> rows_per_expert);

}  // namespace eps
