#include "plan/builtin_profile.h"

#include <algorithm>

namespace eps::plan {
namespace {

// Sustained rates of one thread: f32 arithmetic with AVX2, and reading weights from memory if there are few rows.
constexpr double kF32Gflops = 45;
constexpr double kStreamGbps = 8;

GemmProfile gemm_of(moe::GemmKind kind, DType dtype, double gflops, double gbps) {
  GemmProfile gemm;
  gemm.kind = kind;
  gemm.weight_dtype = dtype;
  gemm.call_us = 2;
  // One shape represents all: the times of other shapes are scaled by n·k. Weights count as bf16 whatever the compute
  // type.
  constexpr int64_t kSize = 1024;
  const double elements = static_cast<double>(kSize) * kSize;
  GemmShapeCurve shape{kSize, kSize, {}};
  for (double rows = 1; rows <= 4096; rows *= 2) {
    shape.us_of_rows.push_back({rows, std::max(2 * elements * rows * 1e-3 / gflops, 2 * elements * 1e-3 / gbps)});
  }
  gemm.shapes.push_back(shape);
  return gemm;
}

}  // namespace

HardwareProfile builtin_cpu_profile(int threads) {
  const double n = std::max(1, threads);
  HardwareProfile profile;
  profile.name = "builtin-cpu";
  profile.device = "any CPU";
  profile.origin = "rough guess";
  profile.memory_gb = 4;
  profile.memory_gbps = kStreamGbps * n;
  profile.ranks_per_node = 1 << 20;
  for (const moe::GemmKind kind : {moe::GemmKind::kDense, moe::GemmKind::kGrouped}) {
    profile.gemms.push_back(gemm_of(kind, DType::kF32, kF32Gflops * n, kStreamGbps * n));
    profile.gemms.push_back(gemm_of(kind, DType::kF16, kF32Gflops * n, kStreamGbps * n));
    profile.gemms.push_back(gemm_of(kind, DType::kBF16, kF32Gflops * n, kStreamGbps * n));
  }
  profile.links = {{0, 4, 20}};
  profile.handoff_us = 20;  // waking a sleeping thread
  for (const char* op : {"gather", "silu_mul", "reduce", "finish", "pack", "norm", "quantize"}) {
    profile.ops[op] = {2, 2 * n};
  }
  profile.attention_tflops = kF32Gflops * n * 1e-3 / 2;
  return profile;
}

}  // namespace eps::plan
