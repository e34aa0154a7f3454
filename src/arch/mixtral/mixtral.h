// The Mixtral family (Mixtral-8x7B, 8x22B).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family mixtral_family();

}  // namespace eps::arch
