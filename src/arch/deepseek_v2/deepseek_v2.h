// The DeepSeek-V2 family (DeepSeek-V2, V2-Lite, V2.5, Coder-V2).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family deepseek_v2_family();

}  // namespace eps::arch
