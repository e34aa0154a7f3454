// The part of a model that a rank holds if its matrices are split over the ranks: the one place that knows which sizes
// a strategy divides.
//
//   heads   attention and the FFN of dense layers, in tp+ep and tp+tp: query heads with their key-value heads, and the
//           inner size of dense layers. Latent projections and their cache serve all heads, so every rank has them
//           whole
//   experts in tp+tp: the inner sizes of routed experts, shared experts and the FFN beside the experts
//
// Every rank has norms, router, embedding and output matrix whole, and in tp+ep also what is beside the routed experts.
// Biases and sinks are split with the rows that they belong to; those of the outputs are added once, after the sum.
#pragma once

#include <string>

#include "arch/model_spec.h"
#include "arch/weight_names.h"
#include "plan/problem.h"

namespace eps::arch {

// Errors  kUsage naming `ep`: `num_ranks` does not divide what `strategy` splits in `model`
void check_split(const ModelSpec& spec, plan::Strategy strategy, int num_ranks, const std::string& model);

// The sizes of a rank's part, which are those of every rank. If the number of ranks is a multiple of the key-value
// heads, ranks share copies of them. Routed experts are all counted, although with ep a rank has only its own ones.
ModelSpec part_of(const ModelSpec& spec, plan::Strategy strategy, int num_ranks);

// What rank `rank` has of a dimension that is `whole` in the model and `part` in part_of(): consecutive parts in the
// order of the ranks; several ranks have the same one if there are fewer parts than ranks.
Slice slice_of_rank(int64_t whole, int64_t part, int rank, int num_ranks);

// The number of parameters that one rank holds: its part of what the strategy splits, its own routed experts, and
// everything else whole.
double parameters_of_rank(const ModelSpec& spec, plan::Strategy strategy, int num_ranks);

}  // namespace eps::arch
