// Assigns every rank's experts to stages such that a rank's stages have about the same number of rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/placement.h"
#include "plan/problem.h"

namespace eps::plan {

class StageBalancer {
 public:
  // Keeps references to both arguments, which must outlive the balancer.
  //
  // Errors  kInternal: more than kMaxExpertsPerRank experts on a rank, which check_problem rejects
  StageBalancer(const moe::ExpertPlacement& placement, std::span<const int64_t> load);

  // Sets stage_of[e] for every expert. A rank's experts are assigned, heaviest first, to the stage with the fewest rows
  // so far (of these, the fewest experts, then the lowest index). Each rank's stages are then numbered in descending
  // order of their rows.
  //
  // Shapes  stage_of [num_experts]
  // Edge    as long as there are not more stages than experts on a rank, no stage is empty
  // Cost    O(num_experts · log num_stages); with few stages, a linear scan, which is faster
  void assign(int num_stages, std::span<int> stage_of);
  // A lower bound for the rows of every stage on `rank`, without assigning its experts.
  double least_stage_rows(int num_stages, int rank) const;

 private:
  const moe::ExpertPlacement& placement_;
  std::span<const int64_t> load_;
  std::vector<int32_t> by_load_;  // each rank's experts, heaviest first
  std::vector<uint64_t> bins_;    // a stage's rows, number of experts and index in one integer
  std::vector<int> place_;        // [num_stages] the final index of a bin's stage
};

}  // namespace eps::plan
