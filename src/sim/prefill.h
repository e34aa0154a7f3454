// Predicts the prefill of a whole model: planned MoE layers, and everything between them from the profile's curves.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "plan/planner.h"
#include "plan/profile.h"
#include "sim/decoder_cost.h"
#include "sim/simulated_model.h"
#include "sim/workload.h"

namespace eps::sim {

struct PrefillOptions {
  int num_ranks = 1;
  plan::Strategy strategy = plan::Strategy::kDpEp;
  plan::PipelineOption pipeline = {};
  plan::PlanLimits limits = {};
  PrefillBatch batch = {};
  plan::Wire wire = {};
  std::vector<plan::Wire> may_use = {};
  Skew skew = {};
  uint64_t seed = 1;
  int num_loads = 1;  // number of different loads, which MoE layers use in turn
};

// The busy time of a rank by part, in µs. Parts run one after the other, so their sum is the time of the prefill.
struct PrefillParts {
  double embedding_us = 0;
  double norms_us = 0;
  double projections_us = 0;
  double scores_us = 0;
  double collectives_us = 0;  // all-reduces outside MoE layers
  double gate_us = 0;
  double moe_us = 0;        // planned layers, with the collectives around them
  double dense_ffn_us = 0;  // in dense layers, and beside the experts
  double lm_head_us = 0;

  double attention_us() const { return projections_us + scores_us; }
  double total_us() const {
    return embedding_us + norms_us + projections_us + scores_us + collectives_us + gate_us + moe_us + dense_ffn_us +
           lm_head_us;
  }
  bool operator==(const PrefillParts&) const = default;
};

// The plan for one of the loads.
struct PlannedLoad {
  int num_layers = 0;  // layers that have this load
  double layer_us = 0;
  plan::Candidate chosen;
  std::string reason;
  bool operator==(const PlannedLoad&) const = default;
};

struct PrefillResult {
  plan::Strategy strategy = plan::Strategy::kDpEp;
  PrefillParts parts;
  double ttft_us = 0;       // until every sequence has its first token
  double tokens_per_s = 0;  // over all ranks
  double moe_layer_us = 0;  // mean over the layers
  double memory_gb = 0;     // of one rank
  bool fits = true;         // in memory; true if the profile does not contain the memory size
  std::vector<PlannedLoad> loads;
  bool operator==(const PrefillResult&) const = default;
};

// The MoE problems of a prefill, one per load. Those of dp+ep and tp+ep differ only in their strategy.
//
// Errors  kUsage, naming the flag: --batch that does not give each rank the same number of sequences (dp+ep), sizes out
//         of range, and those of make_problem
std::vector<plan::MoeProblem> prefill_problems(const SimulatedModel& model, const PrefillOptions& options);

PrefillResult simulate_prefill(const SimulatedModel& model, const plan::HardwareProfile& profile,
                               const PrefillOptions& options, std::span<const plan::MoeProblem> problems);
// The same with problems that are made from `options`.
PrefillResult simulate_prefill(const SimulatedModel& model, const plan::HardwareProfile& profile,
                               const PrefillOptions& options);

}  // namespace eps::sim
