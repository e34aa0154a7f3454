// Implements ops/peer_layer.h for GPUs of one process. Kernels on a few SMs, beside the experts' GEMMs, pull rows from
// the memory of the rank that has them and store partial sums in the memory of the rank that needs them.
//
// Ranks wait for each other's work through events across devices. Such a wait refers to the latest record of an event,
// so the record must already have been issued. The host rendezvous in exchange() and before the last op ensure that.
// Because no device ever waits for work that has not been issued, memory can be allocated at any time.
//
// Layers with few tokens may exchange them through flags instead (FewTokenExchange), on the compute stream alone: their
// kernels do wait for work of other ranks that may not have been issued.
#pragma once

#include <bit>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "moe/placement.h"
#include "ops/cuda/cublas_gemm.h"
#include "ops/cuda/few_token_exchange.h"
#include "ops/cuda/grouped_gemm.h"
#include "ops/cuda/kernels/exchange/combine_rows.h"
#include "ops/cuda/kernels/exchange/row_slots.h"
#include "ops/cuda/kernels/rows/expert_rows.h"
#include "ops/cuda/shared_expert.h"
#include "ops/cuda/stream_lanes.h"
#include "ops/peer_layer.h"

namespace eps::cuda {

class CudaPeerLayer final : public ops::PeerLayer {
 public:
  // The references must outlive the object. `stream` is the stream of the rank's other work.
  CudaPeerLayer(comm::Communicator& comm, MemoryResource& device, CublasGemm& blas, GroupedGemm& grouped,
                cudaStream_t stream);

  void begin_step(std::span<const int64_t> tokens_per_rank, int top_k, int64_t hidden) override;
  void route(const ops::GateParams& gate, TensorView logits, TensorView correction) override;
  void set_routing(int num_experts, TensorView topk_idx, TensorView topk_weight) override;
  ops::PeerLoad exchange(TensorView x) override;
  int64_t most_tokens_without_host() const override;
  void set_rows(TensorView x) override;
  void reserve_without_host(const ops::MoeWeights& weights) override;
  void check() const override { flags_.check(); }
  std::string why_not(const plan::Plan& plan) const override;
  void begin(const plan::Plan& plan, const ops::MoeWeights& weights, MutableTensorView out) override;
  void run(const plan::PlanOp& op) override;
  device::LaneSet& lanes() override { return lanes_; }
  void record_times(bool record) override { lanes_.record_times(record); }
  int64_t num_rows(size_t stage) const override;
  void wait() noexcept override;

 private:
  // The data that a rank publishes to the others, as bytes of Communicator::all_gather.
  struct Published {
    const void* x;
    const int32_t* idx;
    const float* weight;
    nv_bf16* partials;
    cudaEvent_t ready;  // x, idx and weight are written
    cudaEvent_t sent;   // all sums for other ranks are stored
  };

  int rank() const { return counts_.rank; }
  int num_ranks() const { return counts_.num_ranks; }
  moe::ExpertPlacement placement() const { return {num_experts_, num_ranks()}; }
  int64_t all_tokens() const { return int64_t{counts_.num_ranks} * counts_.max_tokens; }
  bool is_empty() const { return counts_.max_tokens == 0; }
  bool uses_flags() const { return plan_->transport == plan::Transport::kFlags; }
  // The tokens of a rank that memory is sized for without the host, whatever the routing.
  int64_t few_tokens_room() const {
    return static_cast<int64_t>(std::bit_ceil(static_cast<unsigned>(counts_.max_tokens)));
  }
  std::string why_not_flags(const plan::Plan& plan) const;
  void begin_without_host();
  ExpertOutputs outputs() const;
  TokenList complete_tokens(int stage) const;
  int comm_sms() const;
  bool overlaps() const;
  bool sends(int stage) const;
  int gemm_sms(int stage) const;
  TokenCounts few_counts() const;
  void set_num_experts(int num_experts);
  void publish(TensorView x);
  ops::PeerLoad count_rows();
  void wait_for_counts() const;
  void make_slots(const plan::Plan& plan);
  void lay_out_rows();

  void dispatch(int stage);
  void pull_rows(bool in_parts);
  void send_tokens();
  void place_tokens();
  void send_sums();
  void gate_up(int stage);
  void down(int stage);
  void reduce(int stage);
  void combine(int stage);
  void shared(plan::TokenShare share);
  void finish();
  void run_experts(int stage, const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y,
                   int num_sms);
  ExpertGroups groups(int stage) const;

  comm::Communicator& comm_;
  CublasGemm& blas_;
  GroupedGemm& grouped_;
  StreamLanes lanes_;
  SharedExpert shared_;
  FewTokenExchange flags_;
  EventPtr ready_, sent_, sorted_;

  // State of the current step.
  TokenCounts counts_;
  int top_k_ = 0;
  int64_t hidden_ = 0;

  // What reserve_without_host() has reserved memory for. The same on all ranks.
  struct Room {
    int64_t tokens = 0;  // of a rank
    int64_t inner = 0;
    int64_t stored_inner = 0;  // of experts that are not plain
    int64_t shared_inner = 0;
    bool operator==(const Room&) const = default;
  } room_;

  // State of the current layer.
  int num_experts_ = 0;
  const int32_t* own_idx_ = nullptr;
  const float* own_weight_ = nullptr;
  const nv_bf16* x_ = nullptr;
  std::vector<Published> peers_;
  ops::PeerLoad load_;
  const plan::Plan* plan_ = nullptr;
  const ops::MoeWeights* weights_ = nullptr;
  const CudaWeightPool* up_pool_ = nullptr;
  const CudaWeightPool* down_pool_ = nullptr;
  MutableTensorView out_;
  SlotTable slots_{};
  std::vector<int> slot_begin_;        // [stages + 1]
  std::vector<int64_t> rows_of_slot_;  // the host's estimate, which is exact for stages with all rows of their experts
  int64_t max_rows_ = 0;               // total over all slots
  bool has_shared_ = false;
  int combines_left_ = 0;
  int first_dispatch_ = 0;  // the stages of the plan's first and last dispatch
  int last_dispatch_ = 0;

  struct Memory {
    explicit Memory(MemoryResource& m)
        : own_idx(m),
          own_weight(m),
          idx(m),
          weight(m),
          counts(m),
          weight_of_slot(m),
          slot_offsets(m),
          place(m),
          dispatch_begin(m),
          dispatch_tokens(m),
          combine_begin(m),
          combine_tokens(m),
          workspace(m),
          x_rows(m),
          act(m),
          rows(m),
          gate_up(m),
          sums(m),
          partials(m),
          shared_out(m) {}
    Buffer own_idx, own_weight;  // [T, K] of this rank
    Buffer idx, weight;          // [num_ranks * max_tokens, K]
    Buffer counts;               // 0 between layers
    Buffer weight_of_slot, slot_offsets, place;
    Buffer dispatch_begin, dispatch_tokens, combine_begin, combine_tokens, workspace;
    Buffer x_rows, act, rows;  // [max_rows, …] by slot
    Buffer gate_up;            // [max_rows, 2 * inner], only of experts that are not plain
    Buffer sums;      // [num_ranks * max_tokens, H] of tokens of other ranks, in the order in which they are completed
    Buffer partials;  // [num_ranks, max_tokens, H] stored by other ranks
    Buffer shared_out;
  } memory_;
  // Dispatches of several stages are one kernel on a stream of its own, which counts the parts it has written. As long
  // as it runs, it keeps its SMs; separate kernels would lose them to a GEMM in between.
  StreamPtr pull_stream_;
  Buffer written_;                       // [kMaxSlots] by stage, never reset
  std::vector<uint32_t> written_after_;  // [kMaxSlots] the counters at the end of the latest layer
  PinnedMemory pinned_;
  Buffer host_counts_;  // the number of the latest counts that are complete, then these counts
  uint32_t num_counted_ = 0;
};

}  // namespace eps::cuda
