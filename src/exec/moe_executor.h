// Runs one MoE layer on one rank as its plan says, on whatever device.
#pragma once

#include "comm/communicator.h"
#include "ops/layer_ops.h"
#include "plan/plan.h"

namespace eps {

class MoeExecutor {
 public:
  // Both references outlive the executor.
  MoeExecutor(LayerOps& layer, Communicator& comm) : layer_(layer), comm_(comm) {}

  // out [T, H] = shared(x) + Σ weight · expert(x), of the x and the routing that `layer` was given. A plan is obeyed in
  // all it says, or refused.
  //
  // Threads  one caller; on any error the communicator is aborted, so that no rank waits for this one
  // Errors   kUsage, with the reason: `layer` cannot do what the plan says
  void run(const Plan& plan, const MoeWeights& weights, MutableTensorView out);

 private:
  LayerOps& layer_;
  Communicator& comm_;
};

}  // namespace eps
