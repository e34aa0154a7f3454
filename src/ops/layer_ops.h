// Runs the ops of a plan on one rank. The executor runs every plan through this interface, whatever the device.
#pragma once

#include <cstdint>
#include <string>

#include "device/lane_set.h"
#include "ops/moe_weights.h"
#include "plan/plan.h"

namespace eps::ops {

// The routing of the layer and x must be set before begin() is called; how that is done depends on the implementation.
class LayerOps {
 public:
  virtual ~LayerOps() = default;

  // Returns why this plan cannot be run exactly as it is, or an empty string if it can.
  virtual std::string why_not(const plan::Plan& plan) const = 0;

  // Whether plans of tp+tp can be run, in which every rank has a part of every expert.
  virtual bool splits_experts() const { return false; }

  // Begins a layer, out [T, H] = shared(x) + Σ weight · expert(x). The plan and the weights outlive the layer.
  // Afterwards, lanes() calls run() for each op; all ranks run the same plan.
  virtual void begin(const plan::Plan& plan, const MoeWeights& weights, MutableTensorView out) = 0;
  virtual void run(const plan::PlanOp& op) = 0;
  virtual device::LaneSet& lanes() = 0;

  // The number of this rank's rows in a stage of the last layer. For halves of the tokens, it may be an estimate.
  virtual int64_t num_rows(size_t stage) const = 0;
};

}  // namespace eps::ops
