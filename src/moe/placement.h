// Assigns experts to ranks: contiguous blocks of equal size.
#pragma once

#include "base/error.h"

namespace eps::moe {

struct ExpertPlacement {
  int num_experts = 0;
  int num_ranks = 1;

  int experts_per_rank() const { return num_experts / num_ranks; }
  int first_expert(int rank) const { return rank * experts_per_rank(); }
  int rank_of(int expert) const { return expert / experts_per_rank(); }
  bool operator==(const ExpertPlacement&) const = default;
};

// Errors  kUsage if `num_ranks` is not positive or does not divide `num_experts`
ExpertPlacement place_experts(int num_experts, int num_ranks);

}  // namespace eps::moe
