// The input of planning: one MoE layer with one batch.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moe/placement.h"
#include "moe/routing.h"
#include "moe/routing_summary.h"
#include "tensor/dtype.h"

namespace eps::plan {

// Sizes of one MoE layer.
struct MoeShape {
  int64_t hidden = 0;
  int64_t inner = 0;         // of one expert
  int64_t shared_inner = 0;  // of all shared experts together; 0: none
  int top_k = 0;
  DType weight_dtype = DType::kBF16;  // selects the GEMM times of the profile
  DType act_dtype = DType::kBF16;     // of activations in memory
  bool operator==(const MoeShape&) const = default;
};

// How attention and experts are distributed over the ranks.
enum class Strategy : uint8_t {
  kDpEp,  // every rank has its own tokens and its own experts
  kTpEp,  // attention is split by heads, so a reduce-scatter comes before dispatch and an all-gather after combine
  kTpTp,  // attention and every expert are split; all ranks have all tokens; two all-reduces
};
std::string_view to_string(Strategy strategy);  // "dp+ep", ...
// Errors  kUsage
Strategy parse_strategy(std::string_view text);

// The types that rows are sent in.
struct Wire {
  DType dispatch = DType::kBF16;
  DType combine = DType::kBF16;
  bool operator==(const Wire&) const = default;
};

// The bytes of one row of `hidden` elements on the wire; fp8 rows include an f32 scale per 128 elements.
int64_t wire_row_bytes(DType dtype, int64_t hidden);

struct MoeProblem {
  MoeShape shape;
  Strategy strategy = Strategy::kDpEp;
  moe::ExpertPlacement placement;
  std::vector<int64_t> load;             // [num_experts] rows of each expert over all ranks
  std::vector<int64_t> tokens_per_rank;  // [num_ranks]
  moe::RoutingSummary routing;
  Wire wire;
  std::vector<Wire> may_use;  // other wires that the planner may choose instead
  bool operator==(const MoeProblem&) const = default;
};

// Creates the dp+ep problem of a routing. Rows are sent in the shape's act_dtype and returned in f32.
//
// Shapes  routing [num_ranks]
MoeProblem make_problem(const MoeShape& shape, const moe::ExpertPlacement& placement,
                        std::span<const moe::Routing> routing);

// The same, given the counts of a routing that is not available on the host.
//
// Shapes  load [num_experts]; tokens_per_rank [num_ranks]
MoeProblem make_problem(const MoeShape& shape, const moe::ExpertPlacement& placement, std::vector<int64_t> load,
                        moe::RoutingSummary routing, std::span<const int64_t> tokens_per_rank, const Wire& wire);

// Creates the tp+tp problem of a routing: every rank has a part of every expert, and all rows, so no row is dispatched.
// All tokens are sent in the shape's act_dtype, and their partial sums in f32.
//
// Shapes  routing [num_ranks]: of the tokens that each rank keeps between the layers
MoeProblem make_split_problem(const MoeShape& shape, int num_experts, std::span<const moe::Routing> routing);

// Sets the load to `rows` rows, as evenly as possible, and the tokens sent between ranks accordingly.
void spread_evenly(MoeProblem& problem, int64_t rows);
// Estimates all other counts of the routing from the load and from tokens_between.
void estimate_routing(MoeProblem& problem);

// Creates the dp+ep problem of a routing that is not known: every rank has `tokens_per_rank` tokens, whose rows are
// spread evenly.
MoeProblem make_even_problem(const MoeShape& shape, const moe::ExpertPlacement& placement, int64_t tokens_per_rank,
                             const Wire& wire);

// Creates the problem of a single rank with all experts, given only the experts' loads.
MoeProblem make_local_problem(const MoeShape& shape, std::span<const int64_t> load, int64_t num_tokens);

// Maximum number of experts per rank.
inline constexpr int kMaxExpertsPerRank = 65535;

// Errors  kInternal if sizes disagree; kUsage if a count is negative, or if a rank has more than 2^31 - 1 rows or more
//         than kMaxExpertsPerRank experts
void check_problem(const MoeProblem& problem);

// The number of stages to split the experts into: the value of --eps-pipeline.
struct PipelineOption {
  enum class Mode : uint8_t { kOff, kAuto, kFixed, kAll, kMicrobatch };
  Mode mode = Mode::kAuto;
  int num_stages = 1;  // kFixed only
};

// "off", "auto", "all", "microbatch" or a positive number. Errors: kUsage
PipelineOption parse_pipeline_option(std::string_view text);
std::string to_string(const PipelineOption& option);

}  // namespace eps::plan
