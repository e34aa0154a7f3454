// The weight matrices of one attention layer, and each rank's part of them when attention is split by heads.
#pragma once

#include <cstdint>
#include <vector>

#include "arch/attention_spec.h"

namespace eps::sim {

// How tensor parallelism splits a matrix [n, k].
enum class Split : uint8_t {
  kWhole,    // every rank has all of it and does all of its work: latent projections, which all heads share
  kHeads,    // n over the ranks
  kKvHeads,  // n over the ranks, as far as there are key-value heads; more ranks than heads share copies
  kInput,    // k over the ranks; the ranks' results are partial sums
};

struct Projection {
  int64_t n = 0;
  int64_t k = 0;
  Split split = Split::kWhole;
  bool operator==(const Projection&) const = default;
};

std::vector<Projection> attention_projections(const arch::AttentionSpec& attention, int64_t hidden);

// One rank's part of a matrix.
Projection part_of(const Projection& whole, const arch::AttentionSpec& attention, int num_ranks);

}  // namespace eps::sim
