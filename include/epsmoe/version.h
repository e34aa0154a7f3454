// The version of the library, as CMake's project() has it.
#pragma once

#define EPSMOE_VERSION_MAJOR 0
#define EPSMOE_VERSION_MINOR 1
#define EPSMOE_VERSION_PATCH 0
#define EPSMOE_VERSION "0.1.0"
