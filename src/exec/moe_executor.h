// Runs one MoE layer on one rank as its plan says.
#pragma once

#include <span>
#include <vector>

#include "comm/communicator.h"
#include "exec/lane_runner.h"
#include "moe/row_layout.h"
#include "ops/op_set.h"
#include "plan/plan.h"

namespace eps {

// Weights of one MoE layer as one rank sees them; not owned.
struct MoeWeights {
  std::vector<const LinearWeight*> gate_up;      // [num_experts] each [2I, H]; null where the expert is on another rank
  std::vector<const LinearWeight*> down;         // [num_experts] each [H, I]
  const LinearWeight* shared_gate_up = nullptr;  // [2S, H]; null: no shared experts
  const LinearWeight* shared_down = nullptr;     // [H, S]
};

class MoeExecutor {
 public:
  MoeExecutor(OpSet& ops, Communicator& comm) : ops_(ops), comm_(comm) {}

  // out = shared(x) + Σ weight · expert(x)
  //
  // Shapes   x, out [T, H] f32; routing [num_ranks], the same on every rank
  // Threads  one caller; on any error the communicator is aborted, so that no rank waits for this one
  // Edge     a rank without tokens takes part in everything
  void run(const Plan& plan, const ExpertPlacement& placement, std::span<const Routing> routing,
           const MoeWeights& weights, TensorView x, MutableTensorView out);

  // Of the last run: this rank's rows in a stage.
  int64_t num_rows(size_t stage) const { return layout_.stages[stage].row_end - layout_.stages[stage].row_begin; }

  // Of the last run; event names are op names.
  const std::vector<TimelineEvent>& timeline() const { return lanes_.timeline(); }

 private:
  void lay_out(const Plan& plan, const ExpertPlacement& placement, std::span<const Routing> routing,
               const MoeWeights& weights, TensorView x, MutableTensorView out);
  void run_ops(const Plan& plan);
  void prepare();
  void dispatch(const StageLayout& stage);
  void gate_up(const StageLayout& stage, GemmKind kernel);
  void silu_mul(const StageLayout& stage);
  void down(const StageLayout& stage, GemmKind kernel);
  void reduce(const StageLayout& stage);
  void combine(const StageLayout& stage);
  void shared(TokenShare share);
  void finish();
  void run_gemms(std::span<const LinearTask> tasks, GemmKind kernel);
  std::byte* row_source(int64_t row) const;

  OpSet& ops_;
  Communicator& comm_;
  LaneRunner lanes_;

  // Set for the length of a run.
  const MoeWeights* weights_ = nullptr;
  TensorView x_;
  MutableTensorView out_;
  RowLayout layout_;
  int64_t hidden_ = 0;
  int64_t inner_ = 0;

  struct Memory {
    Buffer x, recv_x, stage_x, gate_up, act, rows, partials, send_tokens, send_partials, shared_gate_up, shared_act,
        shared_out;
  } memory_;
  MutableTensorView x_compute_;    // [T, H] own tokens, compute dtype
  MutableTensorView recv_tokens_;  // [num_recv_tokens, H] compute dtype
  MutableTensorView gate_up_;      // [stage rows, 2I] f32
  MutableTensorView act_;          // [stage rows, I] compute dtype
  MutableTensorView rows_;         // [num_rows, H] f32: expert outputs, kept until their tokens are complete
  MutableTensorView partials_;     // [num_recv_partials, H] f32
  MutableTensorView shared_out_;   // [T, H] f32
};

}  // namespace eps
