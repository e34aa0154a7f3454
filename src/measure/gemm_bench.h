// `epsmoe bench gemm`: whether the profile picks the faster GEMM kernel for a layer's experts, load by load.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "epsmoe/engine.h"
#include "moe/gemm_kind.h"

namespace eps {

struct GemmBenchOptions {
  EngineOptions engine;   // model, dummy_weights, device, dtype, profile, threads
  std::string preset;     // instead of engine.model, with dummy weights
  int64_t tokens = 1024;  // of each load
  int64_t rows = 0;       // of every expert in every load, whatever the tokens; 0: as their routing is drawn
  int num_experts = 0;    // 0: as the model; dummy weights only
  int loads = 20;
  std::string skew = "dirichlet:0.3";  // of every second load; the others are uniform
  uint64_t seed = 1;                   // of the first load; each one after it adds 1
  int repetitions = 5;
  int64_t limit_size = 0;  // edge of the product that sets the limit; 0: see GemmLimit
};

// One projection of all experts in both kernels, µs.
struct KernelTimes {
  double dense_us = 0, grouped_us = 0;
  double of(GemmKind kind) const { return kind == GemmKind::kDense ? dense_us : grouped_us; }
  GemmKind faster() const { return dense_us <= grouped_us ? GemmKind::kDense : GemmKind::kGrouped; }
};

struct GemmProjection {
  KernelTimes predicted;
  KernelTimes measured;  // medians
  GemmKind chosen = GemmKind::kDense;
};

// Ways to choose a kernel.
enum class KernelRule : uint8_t {
  kProfile,    // as plans do
  kDense,      // always
  kGrouped,    // always
  kThreshold,  // grouped where experts have fewer than 2048 rows on average. Source: EPS-MoE
};
inline constexpr std::array kKernelRules = {KernelRule::kProfile, KernelRule::kDense, KernelRule::kGrouped,
                                            KernelRule::kThreshold};
std::string_view to_string(KernelRule rule);

struct GemmLoad {
  std::string skew;
  uint64_t seed = 0;
  std::vector<int64_t> rows;  // [num_experts]
  double flops = 0;           // of both projections
  GemmProjection gate_up, down;

  // Of both projections, measured.
  double best_us() const {
    return gate_up.measured.of(gate_up.measured.faster()) + down.measured.of(down.measured.faster());
  }
  double us(KernelRule rule) const;
  double regret(KernelRule rule) const { return us(rule) / best_us() - 1; }
  GemmKind kernel(KernelRule rule, const GemmProjection& projection) const;
  double predicted_us() const { return gate_up.predicted.of(gate_up.chosen) + down.predicted.of(down.chosen); }
  double tflops() const { return flops / us(KernelRule::kProfile) * 1e-6; }
};

struct GemmBenchResult {
  std::string model, op_set, profile;
  int64_t hidden = 0, inner = 0;
  int num_experts = 0, top_k = 0, threads = 0;
  std::vector<GemmLoad> loads;
  double limit_tflops = 0;
  std::string limit_source;
};

// A rule over all loads. A choice is one projection of one load.
struct RuleSummary {
  double mean_regret = 0, max_regret = 0;
  int num_dense = 0, num_grouped = 0;
};
// Errors  kInternal without loads
RuleSummary summarize_rule(const std::vector<GemmLoad>& loads, KernelRule rule);

// Times every load in both kernels, in turn. `keep_going` is asked before each repetition: false returns the loads that
// are done, as does EngineOptions::stop within a repetition.
//
// Errors  kUsage, kInput: what cannot be run; kInterrupted: stopped before the first load
GemmBenchResult run_gemm_bench(const GemmBenchOptions& options, const std::function<void(std::string_view)>& note,
                               const std::function<bool()>& keep_going);

}  // namespace eps
