// The Qwen2-MoE family (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family qwen2_moe_family();

}  // namespace eps::arch
