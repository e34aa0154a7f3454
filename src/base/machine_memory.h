// The memory that this process can use.
#pragma once

#include <cstdint>

namespace eps {

// The machine's memory or the limit of the process's control group (cgroup v2), whichever is smaller, in bytes; 0 if
// the system does not report it.
uint64_t machine_memory_bytes();

}  // namespace eps
