// The two ways to run a stage's expert GEMMs.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace eps::moe {

enum class GemmKind : uint8_t {
  kDense,    // one GEMM per expert, one after the other
  kGrouped,  // all experts of the stage in one call
};

std::string_view to_string(GemmKind kind);

// Chooses the kernel for a stage whose experts have these numbers of rows on one rank. On the CPU, a grouped call
// distributes the cores over the experts and is therefore never slower than a loop of dense calls. With one busy
// expert, both are the same call, which is reported as dense.
GemmKind choose_gemm_kind(std::span<const int64_t> rows_per_expert);

}  // namespace eps::moe
