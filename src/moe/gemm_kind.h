// The two ways to run a stage's expert GEMMs.
#pragma once

#include <cstdint>
#include <string_view>

namespace eps::moe {

enum class GemmKind : uint8_t {
  kDense,    // one GEMM per expert, one after the other
  kGrouped,  // all experts of the stage in one call
};

std::string_view to_string(GemmKind kind);

}  // namespace eps::moe
