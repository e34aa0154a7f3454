// The OLMoE family (OLMoE-1B-7B).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family olmoe_family();

}  // namespace eps::arch
