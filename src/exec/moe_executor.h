// Runs one MoE layer on one rank by its plan, independently of the device.
#pragma once

#include "comm/communicator.h"
#include "ops/layer_ops.h"
#include "plan/plan.h"

namespace eps {

class MoeExecutor {
 public:
  // Both references outlive the executor.
  MoeExecutor(LayerOps& layer, Communicator& comm) : layer_(layer), comm_(comm) {}

  // out [T, H] = shared(x) + Σ weight · expert(x), with the x and the routing that were set in `layer`. A plan is
  // executed exactly as given or refused (ADR 0014).
  //
  // Threads  one caller
  // Errors   kUsage, with the reason, if `layer` does not support the plan. On any error the communicator is aborted,
  // so
  //          that no rank waits for this one
  void run(const Plan& plan, const MoeWeights& weights, MutableTensorView out);

 private:
  LayerOps& layer_;
  Communicator& comm_;
};

}  // namespace eps
