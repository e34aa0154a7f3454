// The ways in which the CPU op set can compute a product.
#pragma once

#include <fmt/format.h>

#include <ostream>
#include <string>

#include "base/cpu_features.h"
#include "ops/cpu/cpu_ops.h"

namespace eps::test {

// What this machine cannot run is skipped by name.
struct CpuArm {
  const char* name;
  CpuIsa isa;
  ops::CpuEngine engine;
};
inline void PrintTo(const CpuArm& arm, std::ostream* out) { *out << arm.name; }

// Why this machine cannot run the arm; empty if it can.
inline std::string why_not(const CpuArm& arm) {
  const CpuIsa has = cpu_features().isa();
  // On a CPU with AMX, oneDNN takes other kernels for other numbers of rows, and their bits differ; it is not chosen
  // there. (ctest runs these programs a second time with the cap.)
  if (arm.engine == ops::CpuEngine::kOneDnn && has == CpuIsa::kAmx) {
    return "this CPU has AMX; EPSMOE_CPU_ISA=avx512_bf16 runs oneDNN as on one without";
  }
  return has >= arm.isa ? "" : fmt::format("this CPU has {}", to_string(has));
}

}  // namespace eps::test
