// The Arctic family (snowflake-arctic-base, snowflake-arctic-instruct).
#pragma once

#include "arch/family.h"

namespace eps::arch {

Family arctic_family();

}  // namespace eps::arch
