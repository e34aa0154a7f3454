// The GLM-4.5-MoE family (GLM-4.5, GLM-4.5-Air, GLM-4.6).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family glm4_moe_family();

}  // namespace eps::arch
