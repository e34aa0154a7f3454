// `epsmoe bench gemm`: measures for many loads whether plans choose the faster GEMM kernel for a layer's experts.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "epsmoe/engine.h"
#include "moe/gemm_kind.h"

namespace eps::measure {

struct GemmBenchOptions {
  EngineOptions engine;   // model, dummy_weights, device, dtype, profile, threads
  std::string preset;     // instead of engine.model, with dummy weights
  int64_t tokens = 1024;  // of each load
  int64_t rows = 0;       // of every expert in every load, instead of sampling a routing of `tokens`; 0: sample
  int num_experts = 0;    // 0: as the model; dummy weights only
  int loads = 20;
  std::string skew = "dirichlet:0.3";  // of every second load; the others are uniform
  uint64_t seed = 1;                   // of the first load; each one after it adds 1
  int repetitions = 5;
  int64_t limit_size = 0;  // edge of the product that sets the limit; 0: see GemmLimit
};

// Times of one projection of all experts with each kernel, in µs.
struct KernelTimes {
  double dense_us = 0, grouped_us = 0;
  double of(moe::GemmKind kind) const { return kind == moe::GemmKind::kDense ? dense_us : grouped_us; }
  moe::GemmKind faster() const { return dense_us <= grouped_us ? moe::GemmKind::kDense : moe::GemmKind::kGrouped; }
};

struct GemmProjection {
  KernelTimes predicted;
  KernelTimes measured;  // medians
  moe::GemmKind chosen = moe::GemmKind::kDense;
};

// Ways to choose a kernel.
enum class KernelRule : uint8_t {
  kProfile,    // as in plans: by the predicted times
  kDense,      // always
  kGrouped,    // always
  kThreshold,  // grouped if experts have fewer than 2048 rows on average. Source: EPS-MoE
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

  // Measured time of both projections with the faster kernel for each.
  double best_us() const {
    return gate_up.measured.of(gate_up.measured.faster()) + down.measured.of(down.measured.faster());
  }
  double us(KernelRule rule) const;
  double regret(KernelRule rule) const { return us(rule) / best_us() - 1; }
  moe::GemmKind kernel(KernelRule rule, const GemmProjection& projection) const;
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

// Statistics of a rule over all loads. The rule makes one choice for each projection of each load.
struct RuleSummary {
  double mean_regret = 0, max_regret = 0;
  int num_dense = 0, num_grouped = 0;
};
// Errors  kInternal without loads
RuleSummary summarize_rule(const std::vector<GemmLoad>& loads, KernelRule rule);

// Times every load with both kernels in turn. `keep_going` is called before each repetition; if it returns false, or if
// EngineOptions::stop is requested within a repetition, the result contains the loads that are complete.
//
// Errors  kUsage, kInput: invalid options, or a model without MoE layers; kInterrupted: stopped before the first load
GemmBenchResult run_gemm_bench(const GemmBenchOptions& options, const std::function<void(std::string_view)>& note,
                               const std::function<bool()>& keep_going);

}  // namespace eps::measure
