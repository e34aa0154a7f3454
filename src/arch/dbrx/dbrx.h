// The DBRX family (dbrx-base, dbrx-instruct).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family dbrx_family();

}  // namespace eps::arch
