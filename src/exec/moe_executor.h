// Runs one MoE layer on one rank as its plan says.
#pragma once

#include <span>
#include <vector>

#include "comm/communicator.h"
#include "exec/lane_runner.h"
#include "moe/row_layout.h"
#include "ops/moe_weights.h"
#include "plan/plan.h"

namespace eps {

class MoeExecutor {
 public:
  MoeExecutor(OpSet& ops, Communicator& comm) : ops_(ops), comm_(comm), memory_(ops.memory()) {}

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
    explicit Memory(MemoryResource& m)
        : x(m),
          recv_x(m),
          stage_x(m),
          gate_up(m),
          act(m),
          rows(m),
          partials(m),
          shared_gate_up(m),
          shared_act(m),
          shared_out(m) {}
    Buffer x, recv_x, stage_x, gate_up, act, rows, partials, shared_gate_up, shared_act, shared_out;
    Buffer send_tokens, send_partials;  // on the host
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
