// A plan: which ops one MoE layer runs, in what order, on which lane, with which kernel. A plain value.
//
// Every rank runs the same ops. What differs by rank (how many rows, which tokens) follows from the stages and the
// routing, which all ranks hold; so ranks agree on a plan without asking each other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gemm/gemm_kind.h"
#include "plan/problem.h"

namespace eps {

enum class Lane : uint8_t { kCompute, kDispatch, kCombine };
inline constexpr int kNumLanes = 3;
std::string_view to_string(Lane lane);

enum class OpKind : uint8_t {
  kDispatch,  // tokens a stage is the first to need travel to the ranks of its experts
  kShared,    // shared experts on the rank's own tokens
  kGateUp,    // rows of the stage gathered, then gate and up projections
  kSiluMul,   // silu(gate) * up
  kDown,      // down projection
  kReduce,    // weighting, and the adds of tokens whose last expert on this rank was in this stage
  kCombine,   // those tokens' partial sums travel home
  kFinish,    // partial sums + shared experts -> layer output
};
std::string_view to_string(OpKind kind);

struct PlanOp {
  OpKind kind = OpKind::kFinish;
  Lane lane = Lane::kCompute;
  int stage = -1;         // -1: not part of a stage
  std::vector<int> deps;  // indices of earlier ops in Plan::ops
  bool operator==(const PlanOp&) const = default;
};

struct Stage {
  std::vector<int32_t> experts;        // of every rank, ascending
  std::vector<int64_t> rows_per_rank;  // [num_ranks]
  std::vector<GemmKind> kernel;        // [num_ranks]
  bool operator==(const Stage&) const = default;
};

struct Plan {
  std::string policy;  // "serial" or "eps"
  std::string reason;  // why this policy and number of stages
  DType wire_dtype = DType::kF32;
  std::vector<Stage> stages;
  std::vector<PlanOp> ops;  // a lane runs its ops in this order

  int num_stages() const { return static_cast<int>(stages.size()); }
  bool operator==(const Plan&) const = default;
};

// True when no two ops may run at the same time, so that one thread can run the plan without waiting.
bool is_chain(const Plan& plan);

// Broken promises of `plan`, one line each; empty when it is sound: every expert in exactly one stage, dependencies
// point backwards, dispatch before gate_up before silu_mul before down before reduce before combine, finish last.
std::vector<std::string> find_plan_faults(const Plan& plan, const MoeProblem& problem);

}  // namespace eps
