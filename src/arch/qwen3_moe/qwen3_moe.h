// The Qwen3-MoE family (Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family qwen3_moe_family();

}  // namespace eps::arch
