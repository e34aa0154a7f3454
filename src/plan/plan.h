// A plan: the ops of one MoE layer with their order, lanes, kernels and predicted times. A plain value.
//
// Every rank runs the same ops. Differences between ranks (the number of rows, and which tokens) follow from the stages
// and the routing, which all ranks have, so ranks agree on a plan without communicating.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "moe/gemm_kind.h"
#include "moe/token_part.h"
#include "plan/problem.h"

namespace eps::plan {

enum class Lane : uint8_t { kCompute, kDispatch, kCombine };
inline constexpr int kNumLanes = 3;
std::string_view to_string(Lane lane);

enum class OpKind : uint8_t {
  // Predicted plans of tp+ep have the reduce-scatter of attention's partial sums here, those of tp+tp an all-reduce. In
  // tp+tp plans that are executed (PlanLimits::layer_only), it is the second half of that: every rank gets all tokens.
  kEnter,
  kDispatch,  // sends each token that this stage is the first to need to the ranks of its experts
  kShared,    // shared experts on (a part of) the rank's own tokens
  kGateUp,    // gathers the rows of the stage, then applies the gate and up projections
  kSiluMul,   // silu(gate) * up
  kDown,      // down projection
  kReduce,    // computes weighted sums of the tokens whose last expert on this rank is in this stage
  kCombine,   // sends these partial sums to the tokens' home ranks
  kFinish,    // partial sums + shared experts -> layer output
  kLeave,     // tp+ep: all-gather of the outputs; tp+tp: all-reduce, or its first half: each rank gets its tokens' sums
};
inline constexpr int kNumOpKinds = 10;
std::string_view to_string(OpKind kind);

// A share of the rank's own tokens, in thousandths: [begin, end).
struct TokenShare {
  int begin = 0;
  int end = 1000;
  bool operator==(const TokenShare&) const = default;
};

struct PlanOp {
  OpKind kind = OpKind::kFinish;
  Lane lane = Lane::kCompute;
  int stage = -1;         // -1: not part of a stage
  std::vector<int> deps;  // indices of earlier ops in Plan::ops
  TokenShare share = {};  // kShared only
  bool operator==(const PlanOp&) const = default;
};

struct Stage {
  std::vector<int32_t> experts;  // of all ranks, ascending
  moe::TokenPart part = moe::TokenPart::kAll;
  std::vector<int64_t> rows_per_rank;         // [num_ranks]
  std::vector<moe::GemmKind> gate_up_kernel;  // [num_ranks]
  std::vector<moe::GemmKind> down_kernel;     // [num_ranks]
  bool operator==(const Stage&) const = default;
};

enum class Policy : uint8_t {
  kSerial,      // one stage, one op after the other
  kEps,         // stages by expert, with communication hidden under compute
  kMicrobatch,  // two halves of the tokens, each with all experts, so weights are read twice
  kTp,          // every expert split over the ranks: strategy tp+tp
};
std::string_view to_string(Policy policy);

// The SMs that communication occupies and those that GEMMs may use; {0, 0} if there are no SMs or no limits.
struct SmBudget {
  int comm = 0;
  int gemm = 0;
  bool operator==(const SmBudget&) const = default;
};

// How routing, rows and sums cross between ranks.
enum class Transport : uint8_t {
  kMessages,  // the host counts the routing of all ranks first; the plan depends on it
  // GPUs store routing, rows and sums directly in each other's memory and wait for each other's flags. The host does
  // not take part, so the plan does not depend on the load. One stage with all experts, whose ops follow one another.
  kFlags,
};
std::string_view to_string(Transport transport);  // "messages", "flags"

enum class Verdict : uint8_t {
  kChosen,
  kSlower,       // than the chosen candidate
  kTooBig,       // does not fit in memory
  kNotAsked,     // excluded by the caller's options
  kSlowerModel,  // another strategy, with which a whole prefill takes longer
  kCannotRun,    // not supported by the executor or the profile
};

// One way to run the layer that the planner considered.
struct Candidate {
  Policy policy = Policy::kSerial;
  Strategy strategy = Strategy::kDpEp;
  int num_stages = 1;         // by expert; token parts do not count
  bool local_first = false;   // the first stage processes its local rows during its dispatch
  bool local_around = false;  // all local rows are in stages of their own, before the first and after the last
  bool split_shared = false;  // a part of the shared experts' tokens is processed after the last stage
  Wire wire;
  SmBudget sms;
  bool uses_dense = false;    // the slowest rank uses dense GEMMs in some stage
  bool uses_grouped = false;  // the slowest rank uses grouped GEMMs in some stage
  double makespan_us = 0;
  double bound_us = 0;    // max(compute, communication): the time with perfect overlap
  double compute_us = 0;  // busy time of the compute lane without contention
  double comm_us = 0;     // the same for the communication lanes
  double grouped_us = 0;  // time of the experts' GEMMs if all are grouped: the paper's G
  double memory_gb = 0;   // per rank, if it was estimated
  Verdict verdict = Verdict::kSlower;
  bool operator==(const Candidate&) const = default;
};

struct OpTime {
  double begin_us = 0;
  double end_us = 0;
  bool operator==(const OpTime&) const = default;
};

// The paper's own estimate, for comparison with ours (paper §scheduler).
struct PaperView {
  double eps0 = 0;         // N·S(m/N)/S(m) - 1 at our N: the relative cost of splitting for communication
  double eps1 = 0;         // N·G(m/N, E/N)/G(m, E) - 1: the same for GEMMs
  double overhead_us = 0;  // k: the cost of an additional stage
  double best_stages = 1;  // N* = sqrt(min(comm, compute) / k)
  bool operator==(const PaperView&) const = default;
};

struct Plan {
  static constexpr int kVersion = 1;

  Policy policy = Policy::kSerial;
  Strategy strategy = Strategy::kDpEp;
  std::string reason;  // why this policy and number of stages
  Wire wire;
  Transport transport = Transport::kMessages;
  SmBudget sms;
  std::vector<Stage> stages;
  std::vector<PlanOp> ops;  // a lane runs its ops in this order

  // Predicted times, for the slowest rank of each op.
  std::vector<OpTime> predicted;  // [ops]
  double makespan_us = 0;
  double bound_us = 0;
  int64_t bytes_dispatch = 0;  // on the wire, over all ranks; exact for the planned problem
  int64_t bytes_combine = 0;
  PaperView paper;                    // empty unless a caller sets it to Planner::paper_view()
  std::vector<Candidate> candidates;  // all candidates that were considered, including the chosen one

  int num_stages() const { return static_cast<int>(stages.size()); }
  // The number of stages that the experts are split into, not counting token parts.
  int num_expert_stages() const;
  bool operator==(const Plan&) const = default;
};

// Rows of `stage` on every rank. The two halves of the tokens are assumed to be equal; exact numbers require the
// routing.
std::vector<int64_t> count_stage_rows(const Plan& plan, const Stage& stage, const MoeProblem& problem);

// Whether no two ops may run at the same time, so that one thread can run the plan without waiting.
bool is_chain(const Plan& plan);

// Returns the faults of `plan`, one line each, or nothing if it is valid: every row is in exactly one stage,
// dependencies refer to earlier ops, the ops of a stage follow in the order dispatch, gate_up, silu_mul, down, reduce,
// combine, finish comes last, and the shared experts process every token once.
std::vector<std::string> find_plan_faults(const Plan& plan, const MoeProblem& problem);

}  // namespace eps::plan
