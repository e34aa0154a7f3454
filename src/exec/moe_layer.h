// One rank's MoE layer, whole: gate, exchange of the routing, plan, execution, and what it cost.
#pragma once

#include <map>
#include <vector>

#include "exec/moe_executor.h"
#include "exec/trace.h"
#include "plan/planner.h"

namespace eps {

// Sums over all MoE layers a rank has run.
struct MoeStats {
  OverlapStats overlap;
  int64_t num_layers_run = 0;
  std::map<int, int64_t> layers_by_stages;          // how many layers ran with so many stages
  std::map<std::string, int64_t> stages_by_kernel;  // how many stages ran "dense" and "grouped"
  std::vector<std::vector<int64_t>> load;           // [layer][expert] rows over all ranks; empty: not a MoE layer
};

class MoeLayerRunner {
 public:
  // `trace` may be null; both references outlive the runner.
  MoeLayerRunner(OpSet& ops, Communicator& comm, PipelineOption pipeline, TraceRecorder* trace)
      : ops_(ops), comm_(comm), pipeline_(pipeline), trace_(trace), executor_(ops, comm) {}

  // out [T, H] = MoE(x [T, H]). Every rank calls it for the same layer.
  void run(int layer, const GateParams& gate, const LinearWeight& router, const MoeWeights& weights, TensorView x,
           MutableTensorView out);

  const MoeStats& stats() const { return stats_; }
  const Plan& last_plan() const { return plan_; }

 private:
  Routing route(const GateParams& gate, const LinearWeight& router, TensorView x);
  std::vector<Routing> exchange(const Routing& mine, int top_k);
  void record(int layer, const MoeProblem& problem, int64_t gate_begin_ns, int64_t gate_end_ns);

  OpSet& ops_;
  Communicator& comm_;
  PipelineOption pipeline_;
  TraceRecorder* trace_;
  MoeExecutor executor_;
  MoeStats stats_;
  Plan plan_;
  Buffer logits_, topk_idx_, topk_weight_;
};

}  // namespace eps
