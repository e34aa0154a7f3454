// Assigns every rank's experts to stages, so that a rank's stages have about the same number of rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/placement.h"
#include "plan/problem.h"

namespace eps {

class StageBalancer {
 public:
  // Both arguments must outlive the balancer, which keeps references.
  //
  // Errors  kInternal: more than kMaxExpertsPerRank on a rank, which check_problem refuses
  StageBalancer(const ExpertPlacement& placement, std::span<const int64_t> load);

  // Sets stage_of[e] for every expert. A rank's experts are assigned, heaviest first, to the stage with the fewest rows
  // so far (then the fewest experts, then the lowest index). Stages are then numbered by their rows on every rank,
  // largest first.
  //
  // Shapes  stage_of [num_experts]
  // Edge    up to as many stages as a rank has experts; no stage stays empty
  // Cost    O(num_experts · log num_stages); for few stages a linear scan, which is faster
  void assign(int num_stages, std::span<int> stage_of);

 private:
  const ExpertPlacement& placement_;
  std::span<const int64_t> load_;
  std::vector<int32_t> by_load_;  // each rank's experts, heaviest first
  std::vector<uint64_t> bins_;    // a stage's rows, experts and index in one number
  std::vector<int> place_;        // [num_stages] of a bin's index
};

}  // namespace eps
