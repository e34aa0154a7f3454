// A whole MoE layer on one rank: gate, exchange of the routing, planning, execution and statistics.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "epsmoe/error.h"
#include "exec/host_layer.h"
#include "exec/moe_executor.h"
#include "exec/split_rows.h"
#include "exec/trace.h"
#include "ops/local_moe.h"
#include "ops/peer_layer.h"
#include "plan/plan_cache.h"

namespace eps::exec {

// Sums over all MoE layers that a rank has run.
struct MoeStats {
  OverlapStats overlap;
  int64_t num_layers_run = 0;
  std::map<int, int64_t> layers_by_stages;          // number of layers by their number of stages
  std::map<std::string, int64_t> stages_by_kernel;  // number of projections of stages that ran "dense" or "grouped"
  // For the layers that were timed: all layers on the CPU; on a GPU all layers while a trace is recorded, else some.
  int64_t num_layers_timed = 0;
  double predicted_us = 0;  // predicted time of their plans
  double measured_us = 0;   // measured time of these layers, from the first op to the last
  double error_us = 0;      // Σ |predicted - measured| over the layers
  double setup_us = 0;      // time between the gate and the first op, for planning, the row layout and memory
  int64_t plans_made = 0;   // the plans of all other layers came from the cache
  std::vector<std::vector<int64_t>> load;  // [layer][expert] rows on all ranks; empty for dense layers
};

// The logits of a router are NaN or infinite. All ranks throw this error for the same layer, whichever rank found it,
// and the communicator stays usable.
class RouterError : public Error {
 public:
  explicit RouterError(int layer);
};

class MoeLayerRunner {
 public:
  // All references outlive the runner; `trace` may be null. All layers have the planner's shape. `strategy`: tp+tp if
  // every rank has a part of every expert; else the experts are spread over the ranks.
  MoeLayerRunner(ops::OpSet& ops, comm::Communicator& comm, const plan::Planner& planner, plan::PipelineOption pipeline,
                 TraceRecorder* trace, plan::Strategy strategy = plan::Strategy::kDpEp);

  // Called by every rank before the layers of a step, with the number of tokens of each rank.
  //
  // Shapes  tokens_per_rank [num_ranks]
  void begin_step(std::span<const int64_t> tokens_per_rank, int top_k);

  // Whether the layers of this step can run without the host, so that the step can be recorded (OpSet::run_step). The
  // same on all ranks. Known after begin_step().
  bool can_run_without_host() const;
  // How they run. All ranks call it with the same value; it is kNo after begin_step().
  enum class WithoutHost : uint8_t {
    kNo,
    kPrepare,  // they involve the host, and allocate what they would need without it
    kYes,      // after a step with kPrepare and the same tokens_class()
  };
  void run_without_host(WithoutHost way) { without_host_ = way; }
  // The numbers of tokens on other ranks that layers without the host depend on: steps with the same value make the
  // same calls.
  int64_t tokens_class() const { return most_tokens_class_; }
  // As PeerLayer::check; does nothing for layers that involve the host.
  void check_peers() const;

  // out [T, H] = MoE(x [T, H]), both in the activation dtype. All ranks call it for the same layer.
  // Errors  RouterError, unless the layer is routed on the device; check_router finds such errors
  void run(int layer, const ops::GateParams& gate, const ops::RouterWeights& router, const ops::MoeWeights& weights,
           TensorView x, MutableTensorView out);

  // Errors  RouterError if the router logits of x are NaN or infinite
  // Cost    waits for the device
  void check_router(int layer, const ops::GateParams& gate, const ops::RouterWeights& router, TensorView x);

  // Calls PeerLayer::wait if ranks exchange rows directly between GPUs.
  void wait() noexcept;

  // Counts layers that ran without a call of run(): those of a recorded step that was replayed (OpSet::run_step).
  void count_repeated(int64_t num_layers) { count_local(kFewTokenKernels, num_layers); }

  const MoeStats& stats() const { return stats_; }

 private:
  // The kernels of local layers with few tokens (LocalMoe::few_tokens) and of layers without the host, which do not
  // depend on the load. Replayed steps contain only such layers.
  static constexpr ops::LocalKernels kFewTokenKernels = {};

  // Whether the op set runs whole layers: there is one rank, or every rank has a part of every expert.
  static bool is_local(ops::OpSet& ops, const comm::Communicator& comm, plan::Strategy strategy) {
    return ops.local_moe() != nullptr && (comm.size() == 1 || strategy == plan::Strategy::kTpTp);
  }
  TensorView router_logits(const ops::GateParams& gate, const ops::RouterWeights& router, TensorView x);
  bool are_finite(TensorView logits);
  moe::Routing route(const ops::GateParams& gate, const ops::RouterWeights& router, TensorView x);
  // Runs a layer on an op set that implements whole layers. This is the only path that does not use the executor. If
  // the experts are split, the rows of all ranks are gathered before it, and the ranks' sums are added after it.
  void run_local(ops::LocalMoe& local, int layer, const ops::GateParams& gate, const ops::RouterWeights& router,
                 const ops::MoeWeights& weights, TensorView x, MutableTensorView out);
  std::vector<moe::Routing> exchange(const moe::Routing& mine, int top_k);
  // Each sets the routing of all ranks in the layer behind the executor and returns the planning problem.
  plan::MoeProblem route_on_host(int layer, const ops::GateParams& gate, const ops::RouterWeights& router,
                                 TensorView x);
  void run_on_flags(const ops::GateParams& gate, const ops::RouterWeights& router, const ops::MoeWeights& weights,
                    TensorView x, MutableTensorView out);
  plan::MoeProblem route_on_peers(const ops::GateParams& gate, const ops::RouterWeights& router, TensorView x);
  ops::LayerOps& layer_ops() { return peer_ ? static_cast<ops::LayerOps&>(*peer_) : host_; }
  bool times_next_layer() const;
  struct LayerTimes {
    int64_t gate_begin_ns, gate_end_ns, setup_begin_ns;
  };
  void count_local(const ops::LocalKernels& kernels, int64_t num_layers);
  void count(int layer, const plan::Plan& plan, const plan::MoeProblem& problem);
  void count_times(double predicted_us, double measured_us);
  void add_load(int layer, std::span<const int64_t> rows);
  void record_times(int layer, const plan::Plan& plan, const LayerTimes& times);

  ops::OpSet& ops_;
  comm::Communicator& comm_;
  TraceRecorder* trace_;
  std::unique_ptr<ops::PeerLayer> peer_;  // null: rows are exchanged through the host
  HostLayer host_;
  MoeExecutor executor_;
  plan::PlanCache plans_;
  plan::MoeShape shape_;
  bool splits_experts_;
  bool is_local_;
  MoeStats stats_;
  bool may_run_without_host_;             // dp+ep, and no number of stages is asked for
  std::vector<int64_t> tokens_per_rank_;  // of the current step
  int64_t most_tokens_class_ = 1;         // the most tokens of a rank, rounded up to a power of two
  WithoutHost without_host_ = WithoutHost::kNo;
  std::vector<moe::Routing> routing_;  // of the current layer, if it is routed on the host
  Buffer logits_, topk_idx_, topk_weight_;
  std::unique_ptr<SplitRows> split_rows_;  // of local layers with split experts
  std::vector<float> host_logits_;
};

}  // namespace eps::exec
