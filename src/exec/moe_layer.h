// One rank's MoE layer, whole: gate, exchange of the routing, plan, execution, and what it cost.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "epsmoe/error.h"
#include "exec/host_layer.h"
#include "exec/moe_executor.h"
#include "exec/trace.h"
#include "ops/local_moe.h"
#include "ops/peer_layer.h"
#include "plan/plan_cache.h"

namespace eps {

// Sums over all MoE layers a rank has run.
struct MoeStats {
  OverlapStats overlap;
  int64_t num_layers_run = 0;
  std::map<int, int64_t> layers_by_stages;          // how many layers ran with so many stages
  std::map<std::string, int64_t> stages_by_kernel;  // how many projections of stages ran "dense" and "grouped"
  // Of the layers that were timed: all of them on the CPU; on a GPU every one while a trace is recorded, else a sample.
  int64_t num_layers_timed = 0;
  double predicted_us = 0;                 // predicted time of their plans
  double measured_us = 0;                  // what they took, from the first op to the last
  double error_us = 0;                     // Σ |predicted - measured|, layer by layer
  double setup_us = 0;                     // between gate and first op: plans made, rows sorted
  int64_t plans_made = 0;                  // the other layers found theirs in the cache
  std::vector<std::vector<int64_t>> load;  // [layer][expert] rows over all ranks; empty: not a MoE layer
};

// A router's logits are NaN or infinite. Every rank throws it for the same layer, whichever of them found it, and
// leaves the communicator as it was.
class RouterError : public Error {
 public:
  explicit RouterError(int layer);
};

class MoeLayerRunner {
 public:
  // `trace` may be null; everything referred to outlives the runner. The planner's shape is that of every layer.
  MoeLayerRunner(OpSet& ops, Communicator& comm, const Planner& planner, PipelineOption pipeline, TraceRecorder* trace);

  // Every rank calls it before the layers of a step, with the tokens of all ranks.
  //
  // Shapes  tokens_per_rank [num_ranks]
  void begin_step(std::span<const int64_t> tokens_per_rank, int top_k);

  // out [T, H] = MoE(x [T, H]), both act. Every rank calls it for the same layer.
  // Errors  RouterError, but not where the layer routes on the device: check_router does that
  void run(int layer, const GateParams& gate, const LinearWeight& router, const MoeWeights& weights, TensorView x,
           MutableTensorView out);

  // Errors  RouterError if the router's logits of x are NaN or infinite
  // Cost    waits for the device
  void check_router(int layer, const GateParams& gate, const LinearWeight& router, TensorView x);

  // PeerLayer::wait, where there is one.
  void wait() noexcept;

  // Counts layers that ran without run() being called: those of a step that is played again (OpSet::run_step).
  void count_repeated(int64_t num_layers) { count_local(kFewTokenKernels, num_layers); }

  const MoeStats& stats() const { return stats_; }

 private:
  // Of local layers of few tokens (LocalMoe::few_tokens), whatever the load; only such layers are in repeated steps.
  static constexpr LocalKernels kFewTokenKernels = {};

  static bool is_local(OpSet& ops, const Communicator& comm) { return ops.local_moe() != nullptr && comm.size() == 1; }
  TensorView router_logits(const GateParams& gate, const LinearWeight& router, TensorView x);
  bool are_finite(TensorView logits);
  Routing route(const GateParams& gate, const LinearWeight& router, TensorView x);
  // A layer without other ranks, on an op set that needs no help from the host. (The one GPU layer that does not go
  // through the executor yet.)
  void run_local(LocalMoe& local, int layer, const GateParams& gate, const LinearWeight& router,
                 const MoeWeights& weights, TensorView x, MutableTensorView out);
  std::vector<Routing> exchange(const Routing& mine, int top_k);
  // Each tells the layer behind the executor where every rank's tokens go, and returns what there is to plan.
  MoeProblem route_on_host(int layer, const GateParams& gate, const LinearWeight& router, TensorView x);
  MoeProblem route_on_peers(const GateParams& gate, const LinearWeight& router, TensorView x);
  LayerOps& layer_ops() { return peer_ ? static_cast<LayerOps&>(*peer_) : host_; }
  bool times_next_layer() const;
  struct LayerTimes {
    int64_t gate_begin_ns, gate_end_ns, setup_begin_ns;
  };
  void count_local(const LocalKernels& kernels, int64_t num_layers);
  void count(int layer, const Plan& plan, const MoeProblem& problem);
  void count_times(double predicted_us, double measured_us);
  void add_load(int layer, std::span<const int64_t> rows);
  void record_times(int layer, const Plan& plan, const LayerTimes& times);

  OpSet& ops_;
  Communicator& comm_;
  TraceRecorder* trace_;
  std::unique_ptr<PeerLayer> peer_;  // null: rows go through the host
  HostLayer host_;
  MoeExecutor executor_;
  PlanCache plans_;
  MoeShape shape_;
  MoeStats stats_;
  std::vector<int64_t> tokens_per_rank_;  // of the step
  std::vector<Routing> routing_;          // of the layer, where the host knows it
  Buffer logits_, topk_idx_, topk_weight_;
  std::vector<float> host_logits_;
};

}  // namespace eps
