// Runs one MoE layer on one rank by its plan, independently of the device.
#pragma once

#include "comm/communicator.h"
#include "ops/layer_ops.h"
#include "plan/plan.h"

namespace eps::exec {

class MoeExecutor {
 public:
  // Both references outlive the executor.
  MoeExecutor(ops::LayerOps& layer, comm::Communicator& comm) : layer_(layer), comm_(comm) {}

  // out [T, H] = shared(x) + Σ weight · expert(x), with the x and the routing that were set in `layer`. A plan is
  // executed exactly as given or refused (ADR 0014).
  //
  // Threads  one caller
  // Errors   kUsage, with the reason, if `layer` does not support the plan. On any error the communicator is aborted,
  // so
  //          that no rank waits for this one
  void run(const plan::Plan& plan, const ops::MoeWeights& weights, MutableTensorView out);

 private:
  ops::LayerOps& layer_;
  comm::Communicator& comm_;
};

}  // namespace eps::exec
