// The DeepSeek-V3 family (DeepSeek-V3, R1, Moonlight, Kimi-K2).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family deepseek_v3_family();
Family kimi_k2_family();

}  // namespace eps::arch
