// The weight matrices of one attention layer.
#pragma once

#include <cstdint>
#include <vector>

#include "arch/attention_spec.h"

namespace eps::sim {

// A matrix [n, k].
struct Projection {
  int64_t n = 0;
  int64_t k = 0;
  bool operator==(const Projection&) const = default;
};

// Those of a rank, if `attention` is its part (arch::part_of): of the latent projections, which serve all heads, every
// rank has all.
std::vector<Projection> attention_projections(const arch::AttentionSpec& attention, int64_t hidden);

}  // namespace eps::sim
