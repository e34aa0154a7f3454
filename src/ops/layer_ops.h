// What the ops of a plan do on one rank. The executor runs every plan through this interface, whatever the device.
#pragma once

#include <cstdint>
#include <string>

#include "device/lane_set.h"
#include "ops/moe_weights.h"
#include "plan/plan.h"

namespace eps {

// Implementations know the routing of the layer, and x, before begin() is called; how they get them is their own.
class LayerOps {
 public:
  virtual ~LayerOps() = default;

  // Why this plan cannot be run as it says; empty: it can.
  virtual std::string why_not(const Plan& plan) const = 0;

  // Begins a layer: out [T, H] = shared(x) + Σ weight · expert(x). The plan and the weights outlive the layer. Then
  // run() is called for each op through lanes(), by all ranks for the same plan.
  virtual void begin(const Plan& plan, const MoeWeights& weights, MutableTensorView out) = 0;
  virtual void run(const PlanOp& op) = 0;
  virtual LaneSet& lanes() = 0;

  // Of the last layer: this rank's rows in a stage. Halves of the tokens may be estimates.
  virtual int64_t num_rows(size_t stage) const = 0;
};

}  // namespace eps
