// One MoE layer whose experts are spread over several devices that can read each other's memory. One object for each
// rank; it does what the ops of a plan say, on lanes of its own.
//
// Where the rows of a token go is worked out on the device; the host learns how many there are, to plan with. The order
// in which a token's expert outputs are added depends on its routing alone, so plans, stages and (for 1, 2, 4 or 8) the
// number of ranks do not change a bit of the result.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/routing_summary.h"
#include "ops/layer_ops.h"
#include "ops/op_params.h"

namespace eps {

// What is counted of a layer's routing, over all ranks.
struct PeerLoad {
  std::vector<int64_t> rows;  // [num_experts]
  RoutingSummary summary;
};

class PeerLayer : public LayerOps {
 public:
  // All ranks call it before the layers of a step, with the same numbers. Makes what the layers will need.
  //
  // Shapes  tokens_per_rank [num_ranks]
  virtual void begin_step(std::span<const int64_t> tokens_per_rank, int top_k, int64_t hidden) = 0;

  // Sends each of the rank's tokens to the best experts of `logits` [T, num_experts] f32.
  virtual void route(const GateParams& gate, TensorView logits) = 0;
  // Sends each token to the experts given: topk_idx [T, K] i32, topk_weight [T, K] f32, each expert of a token once.
  virtual void set_routing(int num_experts, TensorView topk_idx, TensorView topk_weight) = 0;

  // Brings the routing of all ranks here and counts it. All ranks call it, each with its rows x [T, H] in the compute
  // dtype, which stay as they are until the layer has ended. Waits for the device.
  virtual PeerLoad exchange(TensorView x) = 0;

  // Begins the layer of the routing exchanged last. The plan and the weights outlive the layer.
  void begin(const Plan& plan, const MoeWeights& weights, MutableTensorView out) override = 0;

  // Whether lanes() record times, which costs some microseconds an op.
  virtual void record_times(bool record) = 0;

  // Returns when the device has done all that this rank has issued to it, also after an error. Memory that other ranks
  // read or write may be freed when every rank has returned from it.
  virtual void wait() noexcept = 0;
};

}  // namespace eps
