// A profile similar to a GPU's for tests, with round numbers, so that expected values can be calculated by hand.
#pragma once

#include <algorithm>

#include "plan/profile.h"

namespace eps::sim {

// 2 x 700 TFLOP/s in 8 bits, weights from memory at 3.35 TB/s; links of 160 GB/s that take 8 SMs of 132.
inline plan::HardwareProfile gpu_profile() {
  plan::HardwareProfile profile;
  profile.name = "test-gpu";
  profile.device = "a GPU in round numbers";
  profile.origin = "made up";
  profile.num_sms = 132;
  profile.ranks_per_node = 8;
  profile.memory_gb = 80;
  profile.memory_gbps = 3350;
  constexpr int64_t kN = 3072;
  constexpr int64_t kK = 5120;
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    const double tflops = dtype == DType::kBF16 ? 700 : 1400;
    for (const moe::GemmKind kind : {moe::GemmKind::kDense, moe::GemmKind::kGrouped}) {
      plan::GemmShapeCurve shape{kN, kK, {}};
      for (const double rows : {1.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0}) {
        const double weights_us = static_cast<double>(kN * kK * (dtype == DType::kBF16 ? 2 : 1)) * 1e-3 / 3350;
        const double flops_us = 2 * rows * static_cast<double>(kN * kK) * 1e-6 / tflops;
        shape.us_of_rows.push_back({rows, std::max(weights_us, flops_us)});
      }
      plan::GemmProfile gemm;
      gemm.kind = kind;
      gemm.weight_dtype = dtype;
      gemm.call_us = 5;
      gemm.shapes = {shape};
      if (kind == moe::GemmKind::kGrouped) gemm.sm_factor = {{66, 2.0}, {124, 1.06}, {132, 1.0}};
      profile.gemms.push_back(gemm);
    }
  }
  profile.links = {{8, 160, 20}};
  profile.contention = {0.02, 0.02, 0.2, 0.5};
  profile.handoff_us = 5;
  for (const char* op : {"gather", "silu_mul", "reduce", "finish", "pack", "norm", "quantize", "other"}) {
    profile.ops[op] = {3, 2500};
  }
  profile.attention_tflops = 400;
  return profile;
}

}  // namespace eps::sim
