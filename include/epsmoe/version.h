// The version of the library; equal to the one in CMake's project().
#pragma once

#define EPSMOE_VERSION_MAJOR 0
#define EPSMOE_VERSION_MINOR 1
#define EPSMOE_VERSION_PATCH 0
#define EPSMOE_VERSION "0.1.0"
