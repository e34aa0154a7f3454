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

// Kernel for a stage whose experts have these rows on one rank. On the CPU a grouped call shares the cores between
// experts and so never loses to the dense loop; with one busy expert the two are the same call, and dense says so.
GemmKind choose_gemm_kind(std::span<const int64_t> rows_per_expert);

}  // namespace eps
