#include "moe/gemm_kind.h"

namespace eps::moe {

std::string_view to_string(GemmKind kind) { return kind == GemmKind::kDense ? "dense" : "grouped"; }

}  // namespace eps::moe
