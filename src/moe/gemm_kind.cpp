#include "moe/gemm_kind.h"

#include <algorithm>

namespace eps::moe {

std::string_view to_string(GemmKind kind) { return kind == GemmKind::kDense ? "dense" : "grouped"; }

GemmKind choose_gemm_kind(std::span<const int64_t> rows_per_expert) {
  const auto busy = std::count_if(rows_per_expert.begin(), rows_per_expert.end(), [](int64_t m) { return m > 0; });
  return busy > 1 ? GemmKind::kGrouped : GemmKind::kDense;
}

}  // namespace eps::moe
