// Random routings for benchmarks, with a load as even or as skewed as asked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moe/routing.h"

namespace eps::cli {

// How popular the experts are.
struct Skew {
  double alpha = 0;  // 0: all alike; else popularity is one draw of a Dirichlet distribution: smaller is more skewed
};

// "uniform" or "dirichlet:ALPHA".  Errors  kUsage
Skew parse_skew(const std::string& text);

// A routing for each rank; every token takes `top_k` different experts, drawn by popularity, with weights that sum
// to 1. The same arguments give the same routing.
std::vector<Routing> random_routing(int num_ranks, int64_t tokens_per_rank, int num_experts, int top_k, Skew skew,
                                    uint64_t seed);

}  // namespace eps::cli
