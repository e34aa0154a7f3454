// An MoE layer with all experts on one rank that runs without the host: the device counts, sorts, multiplies and adds
// up the rows. For op sets that would have to wait if the host read the routing.
#pragma once

#include <cstdint>
#include <vector>

#include "moe/gemm_kind.h"
#include "ops/moe_weights.h"
#include "ops/op_params.h"

namespace eps::ops {

// The kernel of each projection.
struct LocalKernels {
  moe::GemmKind gate_up = moe::GemmKind::kGrouped;
  moe::GemmKind down = moe::GemmKind::kGrouped;
  bool operator==(const LocalKernels&) const = default;
};

class LocalMoe {
 public:
  virtual ~LocalMoe() = default;

  // Routes each token to the experts with the best `logits` [T, num_experts] f32. `correction`: see OpSet::gate.
  virtual void route(const GateParams& gate, TensorView logits, TensorView correction) = 0;
  // Routes each token to the given experts instead: topk_idx [T, K] i32, topk_weight [T, K] f32. A token's experts must
  // be distinct.
  virtual void set_routing(int num_experts, TensorView topk_idx, TensorView topk_weight) = 0;
  // The number of rows of each expert. Waits for the device, so it must not be called within run_step.
  virtual std::vector<int64_t> load() = 0;
  // Up to this many tokens, a layer runs the same kernels whatever the load, so load() need not be called.
  virtual int64_t few_tokens() const = 0;
  // Computes out [T, H] act = shared(x) + Σ weight · expert(x) for the current routing; x [T, H] in the compute dtype.
  // With more than few_tokens() tokens, dense kernels require load() to be called first.
  //
  // Order  a token's expert outputs are added in an order that depends only on its own routing and the number of tokens
  virtual void run(const MoeWeights& weights, const LocalKernels& kernels, TensorView x, MutableTensorView out) = 0;
};

}  // namespace eps::ops
