// The gpt-oss family (gpt-oss-20b, gpt-oss-120b).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family gpt_oss_family();

}  // namespace eps::arch
