// The Granite-MoE family (Granite 3.0 and 3.1 1B-A400M and 3B-A800M).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family granite_moe_family();

}  // namespace eps::arch
