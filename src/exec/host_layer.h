// LayerOps for memory that the host can address: rows are computed by an OpSet, exchanged through a Communicator, and
// every lane is a thread.
#pragma once

#include <span>
#include <string>
#include <utility>

#include "comm/collectives.h"
#include "comm/communicator.h"
#include "exec/lane_runner.h"
#include "moe/row_layout.h"
#include "ops/layer_ops.h"

namespace eps::exec {

class HostLayer final : public ops::LayerOps {
 public:
  // Both references outlive the object.
  HostLayer(ops::OpSet& ops, comm::Communicator& comm)
      : ops_(ops),
        comm_(comm),
        enter_(comm, comm::Channel::kDispatch),
        leave_(comm, comm::Channel::kCombine),
        memory_(ops.memory()) {}

  // Sets the tokens and the routing of the next layer. Both must stay valid until that layer has ended.
  //
  // Shapes  routing [num_ranks], the same on every rank; x [T, H] f32
  // Edge    a rank without tokens still takes part in every exchange
  void set_routing(const moe::ExpertPlacement& placement, std::span<const moe::Routing> routing, TensorView x);

  std::string why_not(const plan::Plan& plan) const override;
  bool splits_experts() const override { return true; }
  // Shapes  out [T, H] f32
  void begin(const plan::Plan& plan, const ops::MoeWeights& weights, MutableTensorView out) override;
  void run(const plan::PlanOp& op) override;
  device::LaneSet& lanes() override { return lanes_; }
  int64_t num_rows(size_t stage) const override {
    return layout_.stages[stage].row_end - layout_.stages[stage].row_begin;
  }

 private:
  // The layout of this rank's rows: those of its experts, or all of them if every expert is split.
  moe::RowLayout make_layout(const moe::StageMap& stages);
  void prepare();
  // A view of the buffer's beginning. If the buffer grows for it, its memory is made resident.
  MutableTensorView reserve(Buffer& buffer, DType dtype, const Shape& shape);
  std::pair<int64_t, int64_t> tokens_of(plan::TokenShare share) const;
  void dispatch(const moe::StageLayout& stage);
  void gate_up(const moe::StageLayout& stage, moe::GemmKind kernel);
  void silu_mul(const moe::StageLayout& stage);
  void down(const moe::StageLayout& stage, moe::GemmKind kernel);
  void reduce(const moe::StageLayout& stage);
  void combine(const moe::StageLayout& stage);
  void shared(plan::TokenShare share);
  // Of split experts: all ranks' tokens to every rank, and the ranks' partial sums to the tokens' ranks.
  void enter();
  void leave();
  void finish();
  void run_gemms(std::span<const ops::LinearTask> tasks, moe::GemmKind kernel);
  void add_biases(const moe::StageLayout& stage, TensorView bias, MutableTensorView rows, int64_t first);
  std::byte* row_source(int64_t row) const;

  ops::OpSet& ops_;
  comm::Communicator& comm_;
  comm::Collectives enter_, leave_;  // one for each lane
  LaneRunner lanes_;

  // State of the current layer.
  moe::ExpertPlacement placement_;
  std::span<const moe::Routing> routing_;
  const plan::Plan* plan_ = nullptr;
  const ops::MoeWeights* weights_ = nullptr;
  TensorView x_;
  MutableTensorView out_;
  moe::RowLayout layout_;
  bool is_split_ = false;    // a plan of tp+tp
  comm::RowShares shares_;   // the tokens of all ranks, in their order
  moe::Routing all_tokens_;  // their routing, if is_split_
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
          sums(m),
          shared_gate_up(m),
          shared_act(m),
          shared_out(m),
          shared_logits(m) {}
    Buffer x, recv_x, stage_x, gate_up, act, rows, partials, sums, shared_gate_up, shared_act, shared_out,
        shared_logits;
    Buffer send_tokens, send_partials;  // staging, in host memory
  } memory_;
  MutableTensorView x_compute_;    // [T, H] compute dtype: this rank's tokens; of all ranks if is_split_
  MutableTensorView recv_tokens_;  // [num_recv_tokens, H] compute dtype
  MutableTensorView gate_up_;      // [stage rows, 2I] f32
  MutableTensorView act_;          // [stage rows, I] compute dtype
  MutableTensorView rows_;         // [num_rows, H] f32: expert outputs, kept until their tokens are complete
  MutableTensorView partials_;     // [num_recv_partials, H] f32
  MutableTensorView shared_out_;   // [T, H] f32
  MutableTensorView sums_;         // [T, H] f32: this rank's part of the output, if is_split_
};

}  // namespace eps::exec
