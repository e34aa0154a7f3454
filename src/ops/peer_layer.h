// One MoE layer whose experts are spread over several devices that can access each other's memory. There is one object
// per rank, which runs the ops of a plan on its own lanes.
//
// The device computes where the rows of each token go; the host receives only their numbers, for planning. Layers with
// few tokens can do without (plan::Transport::kFlags): then no rank's host waits or takes part, so that such layers can
// be recorded (OpSet::run_step). The order in
// which a token's expert outputs are added depends only on its routing, so the result is bit for bit the same for all
// plans, all numbers of stages and (for 1, 2, 4 or 8) all numbers of ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/routing_summary.h"
#include "ops/layer_ops.h"
#include "ops/op_params.h"

namespace eps::ops {

// The counts of a layer's routing over all ranks that planning needs.
struct PeerLoad {
  std::vector<int64_t> rows;  // [num_experts]
  moe::RoutingSummary summary;
};

class PeerLayer : public LayerOps {
 public:
  // Allocates what the layers of a step need. All ranks call it before the layers, with the same arguments.
  //
  // Shapes  tokens_per_rank [num_ranks]
  virtual void begin_step(std::span<const int64_t> tokens_per_rank, int top_k, int64_t hidden) = 0;

  // Routes each of the rank's tokens to the experts with the best `logits` [T, num_experts] f32. `correction`: see
  // OpSet::gate.
  virtual void route(const GateParams& gate, TensorView logits, TensorView correction) = 0;
  // Routes each token to the given experts instead: topk_idx [T, K] i32, topk_weight [T, K] f32. A token's experts must
  // be distinct.
  virtual void set_routing(int num_experts, TensorView topk_idx, TensorView topk_weight) = 0;

  // Gathers the routing of all ranks and counts it. All ranks call it, each with its own rows x [T, H] in the compute
  // dtype, which must not change until the layer has ended. Waits for the device.
  virtual PeerLoad exchange(TensorView x) = 0;

  // The largest number of tokens on a rank with which layers of this step can run without the host; 0: none can. The
  // same on all ranks. Known after begin_step().
  virtual int64_t most_tokens_without_host() const = 0;
  // In place of exchange(), before a plan of Transport::kFlags: only sets x, which must not change until the layer has
  // ended.
  virtual void set_rows(TensorView x) = 0;
  // Reports layers without the host that did not end because of another rank. To be called once the device has been
  // waited for, before results are used.
  //
  // Errors  kTimeout, naming the rank that this one waited for; kAborted
  virtual void check() const = 0;

  // Allocates what layers with these weights and the tokens of this step need without the host, whatever their routing.
  // Layers with other numbers of tokens need the same if their most tokens of a rank, rounded up to a power of two, are
  // the same. begin() calls it where that has not been done, but a layer that is recorded must not allocate. All ranks
  // call it for the same layer.
  virtual void reserve_without_host(const MoeWeights& weights) = 0;
  // Begins the layer whose routing was exchanged, or whose rows were set, last. The plan and the weights outlive the
  // layer.
  void begin(const plan::Plan& plan, const MoeWeights& weights, MutableTensorView out) override = 0;

  // Whether lanes() record times, which costs some microseconds an op.
  virtual void record_times(bool record) = 0;

  // Returns when the device has completed everything that this rank has issued, even after an error. Memory that other
  // ranks access may be freed once this has returned on every rank.
  virtual void wait() noexcept = 0;
};

}  // namespace eps::ops
