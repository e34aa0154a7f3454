// The speed of a machine: a plain value, either measured (`epsmoe tune`) or compiled from published figures.
//
// All times are in microseconds, on one rank that is alone on its device. Rates are decimal: 1 GB/s = 1e9 bytes per
// second.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "moe/gemm_kind.h"
#include "tensor/dtype.h"

namespace eps::plan {

// A piecewise linear curve through points with ascending x. It is constant below the first point. Above the last point,
// times are extended through the last two points and factors are constant (curve_at's `extend`).
struct CurvePoint {
  double x = 0;
  double y = 0;
  bool operator==(const CurvePoint&) const = default;
};
using Curve = std::vector<CurvePoint>;

// y = x · w^T for one expert's weight w [n, k].
struct GemmShapeCurve {
  int64_t n = 0;
  int64_t k = 0;
  Curve us_of_rows;  // µs that one group of x rows adds to a call; from 1 row on
  bool operator==(const GemmShapeCurve&) const = default;
};

// One kind of GEMM kernel for one weight type. A stage whose experts have m_1 … m_g rows takes
//   dense    Σ (call_us + us(m_i)), over the experts that have rows
//   grouped  call_us + group_factor(g) · Σ us(m_i); if the factor is above 1, which holds for kGroupFactorRows rows an
//            expert, call_us + max(Σ us(m_i), group_factor(g) · Σ us(min(m_i, kGroupFactorRows)))
// in each case times sm_factor(SMs that it may use). For a shape that was not measured, the nearest measured one is
// scaled by n·k.
inline constexpr int64_t kGroupFactorRows = 16;

struct GemmProfile {
  moe::GemmKind kind = moe::GemmKind::kDense;
  DType weight_dtype = DType::kBF16;
  double call_us = 0;
  std::vector<GemmShapeCurve> shapes;
  Curve group_factor;  // by the number of groups with rows; empty: 1
  Curve sm_factor;     // by the number of SMs, at least 1; empty: the kernel cannot be limited, or there are no SMs
  // Grouped only: the kernel of the gate and up projections also computes silu(gate) * up, so the cost of "silu_mul"
  // applies only to dense GEMMs.
  bool fuses_silu_mul = false;
  bool operator==(const GemmProfile&) const = default;
};

// An op whose time depends on the bytes it reads and writes: fixed_us + bytes / rate. Data that fits in a cache is
// faster than data that does not, so measured profiles contain a curve instead.
struct OpCost {
  double fixed_us = 0;
  double gbps = 0;
  Curve us_of_bytes = {};  // µs; if it is not empty, fixed_us and gbps are 0 and not used
  bool operator==(const OpCost&) const = default;
};

// One way to send rows, which occupies `sms` SMs meanwhile (0: copy engines, or a device without SMs).
struct LinkPoint {
  int sms = 0;
  double gbps = 0;      // per rank and direction
  double alpha_us = 0;  // latency of an all-to-all of any size
  // GPUs: the rate at which the receiving rank writes a dispatch's rows, one for each expert of a token; 0: no limit
  // besides gbps, because rows are copied later.
  double spread_gbps = 0;
  bool operator==(const LinkPoint&) const = default;
};

// How much compute and communication slow each other down if they run at the same time; 0.1 means 10 % longer.
struct Contention {
  double compute = 0;           // slowdown of compute within its SM budget during a message
  double comm = 0;              // slowdown of the message
  double uncapped_compute = 0;  // the same two for kernels that use every SM
  double uncapped_comm = 0;
  bool operator==(const Contention&) const = default;
};

struct HardwareProfile {
  static constexpr int kVersion = 1;

  std::string name;    // "h800"
  std::string device;  // "NVIDIA H800 SXM", "cpu f32 (avx2), 1 thread": the device that the profile is valid for
  std::string origin;  // "measured" or "published figures"
  std::string made;    // when and by which version, for information
  // The source of each number by its key ("links", "gemms.grouped.bf16"), for information.
  std::map<std::string, std::string> sources;

  int num_sms = 0;         // 0: not a GPU
  int ranks_per_node = 1;  // ranks connected by `links`; others are connected by `inter_links`
  double memory_gb = 0;    // of one rank
  double memory_gbps = 0;

  std::vector<GemmProfile> gemms;      // at most one for each kind and weight type
  std::vector<LinkPoint> links;        // ascending SMs; empty: one rank only
  std::vector<LinkPoint> inter_links;  // between nodes; empty: as `links`
  Contention contention;
  double handoff_us = 0;  // from the end of an op on one lane to the start of an op on another lane that waits for it
  std::map<std::string, OpCost> ops;  // "gather", "silu_mul", "reduce", "finish", "pack", "norm", "quantize", "other"
  double attention_tflops = 0;        // rate of attention's scores and values; the masked (causal) half is not counted

  bool operator==(const HardwareProfile&) const = default;
};

// Returns y at x. With `extend`, the last segment is continued above the last point; otherwise the curve is flat there.
double curve_at(const Curve& curve, double x, bool extend);

// Returns the faults of a profile, one line each with the key, the value and the range, or nothing if it is valid:
// numbers are in range, curves are ascending and of bounded length, there is a GEMM of each kind, …
std::vector<std::string> find_profile_faults(const HardwareProfile& profile);

// Returns the profile's kernel of that kind and weight type.  Errors  kUsage, listing the profile's kernels
const GemmProfile& find_gemm(const HardwareProfile& profile, moe::GemmKind kind, DType weight_dtype);

// Returns the time that an op with this cost takes for `bytes` bytes.
inline double time_us(const OpCost& cost, double bytes) {
  if (!cost.us_of_bytes.empty()) return curve_at(cost.us_of_bytes, bytes, true);
  return cost.fixed_us + (cost.gbps > 0 ? bytes * 1e-3 / cost.gbps : 0.0);
}

}  // namespace eps::plan
