// An MoE layer whose experts are all on one rank, done without the host: the rows of each expert are counted, sorted,
// multiplied and added up where the tokens are. For op sets that a look at the routing would hold up.
#pragma once

#include <cstdint>
#include <vector>

#include "moe/gemm_kind.h"
#include "ops/moe_weights.h"
#include "ops/op_params.h"

namespace eps {

// Which kernel each projection takes.
struct LocalKernels {
  GemmKind gate_up = GemmKind::kGrouped;
  GemmKind down = GemmKind::kGrouped;
  bool operator==(const LocalKernels&) const = default;
};

class LocalMoe {
 public:
  virtual ~LocalMoe() = default;

  // Sends each token to the best experts of `logits` [T, num_experts] f32.
  virtual void route(const GateParams& gate, TensorView logits) = 0;
  // Sends each token to the experts given instead: topk_idx [T, K] i32, topk_weight [T, K] f32, each expert of a token
  // once.
  virtual void set_routing(int num_experts, TensorView topk_idx, TensorView topk_weight) = 0;
  // Rows of each expert; waits for the device, so not within run_step.
  virtual std::vector<int64_t> load() = 0;
  // Up to this number of tokens, every layer runs the same kernels whatever the load, so load() is not needed.
  virtual int64_t few_tokens() const = 0;
  // Beyond them, dense kernels need to know the load: load() comes first.
  //
  // out [T, H] act = shared(x) + Σ weight · expert(x) of the routing set last; x [T, H] compute dtype.
  // A token's sum has one order, fixed by its own routing and the number of tokens.
  virtual void run(const MoeWeights& weights, const LocalKernels& kernels, TensorView x, MutableTensorView out) = 0;
};

}  // namespace eps
