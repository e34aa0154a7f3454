#include "ops/cuda/peer_layer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "ops/cuda/cuda_local_moe.h"
#include "ops/cuda/kernels/exchange/move_rows.h"
#include "ops/cuda/kernels/router/gate.h"

namespace eps::cuda {
namespace {

// Number of SMs for dispatch and combine if the plan has no budget: enough to saturate the link, and no GEMM runs
// meanwhile.
constexpr int kUnlimitedCommSms = 24;
// If a device has not finished after this time, it is assumed to hang.
constexpr std::chrono::seconds kDeviceTimeout{60};

template <typename T>
T* room(Buffer& buffer, int64_t count) {
  return buffer.view(DTypeOf<T>::value, {std::max<int64_t>(1, count)}).template as<T>();
}
nv_bf16* bf16_room(Buffer& buffer, int64_t rows, int64_t width) {
  return static_cast<nv_bf16*>(buffer.view(DType::kBF16, {std::max<int64_t>(1, rows), width}).data());
}
template <typename T>
T* data_of(const Buffer& buffer) {
  return reinterpret_cast<T*>(buffer.data());
}

// Whether a stage's part contains the tokens of a column of SlotTable::slot.
bool takes(moe::TokenPart part, bool is_own, bool is_second_half) {
  switch (part) {
    case moe::TokenPart::kAll: return true;
    case moe::TokenPart::kLocal: return is_own;
    case moe::TokenPart::kRemote: return !is_own;
    case moe::TokenPart::kFirstHalf: return !is_second_half;
    case moe::TokenPart::kSecondHalf: return is_second_half;
  }
  return false;
}

}  // namespace

CudaPeerLayer::CudaPeerLayer(comm::Communicator& comm, MemoryResource& device, CublasGemm& blas, GroupedGemm& grouped,
                             cudaStream_t stream)
    : comm_(comm),
      blas_(blas),
      grouped_(grouped),
      lanes_(stream),
      shared_(device, blas, lanes_.stream(plan::Lane::kCompute)),
      flags_(comm, device),
      ready_(make_event()),
      sent_(make_event()),
      sorted_(make_event()),
      memory_(device),
      pull_stream_(make_urgent_stream()),
      written_(device),
      written_after_(kMaxSlots, 0),
      host_counts_(pinned_) {
  EPS_CHECK_LE(comm.size(), kMaxRanks);
  counts_.rank = comm.rank();
  counts_.num_ranks = comm.size();
  // Of the largest layer, so that it is cleared only once.
  constexpr RoutingCounts kMostCounts{kMaxSlotExperts, kMaxRanks, kMaxSumTopK};
  constexpr size_t kCountBytes = static_cast<size_t>(kMostCounts.size() + 1) * sizeof(int32_t);
  memory_.counts.reserve(kCountBytes);
  EPS_CUDA(cudaMemset(memory_.counts.data(), 0, kCountBytes));
  host_counts_.reserve(kCountBytes);
  std::memset(host_counts_.data(), 0, kCountBytes);
  written_.reserve(kMaxSlots * sizeof(int32_t));
  EPS_CUDA(cudaMemset(written_.data(), 0, kMaxSlots * sizeof(int32_t)));
  EPS_CUDA(cudaDeviceSynchronize());  // other streams do not wait for it
}

void CudaPeerLayer::wait() noexcept {
  lanes_.wait();
  cudaStreamSynchronize(pull_stream_.get());
}

void CudaPeerLayer::begin_step(std::span<const int64_t> tokens_per_rank, int top_k, int64_t hidden) {
  EPS_CHECK_EQ(std::ssize(tokens_per_rank), num_ranks());
  EPS_CHECK(hidden % 8 == 0, "rows of {} elements are not a multiple of 16 bytes", hidden);
  EPS_CHECK_LE(top_k, kMaxSumTopK);
  std::ranges::copy(tokens_per_rank, counts_.tokens);
  counts_.max_tokens = static_cast<int>(std::ranges::max(tokens_per_rank));
  if (top_k != top_k_ || hidden != hidden_) room_ = {};
  top_k_ = top_k;
  hidden_ = hidden;
  if (flags_.is_usable()) {
    // Until the previous step's layers have ended, which other ranks may still have to issue, nothing is allocated.
    lanes_.wait();
    check();
  }
  if (num_ranks() > 1 && counts_.max_tokens <= flags_.most_tokens()) flags_.set_up(top_k, hidden);
  if (is_empty()) return;
  const int64_t routed = all_tokens() * top_k;
  room<int32_t>(memory_.own_idx, int64_t{counts_.max_tokens} * top_k);
  room<float>(memory_.own_weight, int64_t{counts_.max_tokens} * top_k);
  room<int32_t>(memory_.idx, routed);
  room<float>(memory_.weight, routed);
  room<int32_t>(memory_.place, routed);
  room<int32_t>(memory_.dispatch_tokens, all_tokens());
  room<int32_t>(memory_.combine_tokens, all_tokens());
  bf16_room(memory_.partials, all_tokens(), hidden);
  bf16_room(memory_.sums, all_tokens(), hidden);
}

void CudaPeerLayer::set_num_experts(int num_experts) {
  if (num_experts > kMaxSlotExperts) {
    fail(ErrorKind::kUsage, "device",
         {.what = "more experts than its kernels support",
          .got = std::to_string(num_experts),
          .wanted = fmt::format("at most {}", kMaxSlotExperts),
          .hint = "`device` cpu"});
  }
  num_experts_ = num_experts;
}

void CudaPeerLayer::route(const ops::GateParams& gate, TensorView logits, TensorView correction) {
  set_num_experts(gate.num_experts);
  EPS_CHECK_EQ(gate.top_k, top_k_);
  auto* idx = data_of<int32_t>(memory_.own_idx);
  auto* weight = data_of<float>(memory_.own_weight);
  launch_select_experts({.logits = logits.as<const float>(),
                         .correction = correction.as<const float>(),
                         .gate = gate,
                         .rows = logits.dim(0),
                         .idx = idx,
                         .weight = weight},
                        lanes_.stream(plan::Lane::kCompute));
  own_idx_ = idx;
  own_weight_ = weight;
}

void CudaPeerLayer::set_routing(int num_experts, TensorView topk_idx, TensorView topk_weight) {
  set_num_experts(num_experts);
  EPS_CHECK_EQ(topk_idx.dim(1), top_k_);
  own_idx_ = topk_idx.as<const int32_t>();
  own_weight_ = topk_weight.as<const float>();
}

void CudaPeerLayer::publish(TensorView x) {
  lanes_.use_one_stream(false);
  EPS_CHECK_EQ(x.dim(0), counts_.tokens[rank()]);
  x_ = static_cast<const nv_bf16*>(x.data());
  EPS_CUDA(cudaEventRecord(ready_.get(), lanes_.stream(plan::Lane::kCompute)));
  const Published mine{x.data(), own_idx_, own_weight_, data_of<nv_bf16>(memory_.partials), ready_.get(), sent_.get()};
  peers_.clear();
  for (const std::vector<std::byte>& bytes : comm_.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    EPS_CHECK_EQ(bytes.size(), sizeof(Published));
    std::memcpy(&peers_.emplace_back(), bytes.data(), sizeof(Published));
  }
}

ops::PeerLoad CudaPeerLayer::exchange(TensorView x) {
  publish(x);
  load_ = count_rows();
  return load_;
}

ops::PeerLoad CudaPeerLayer::count_rows() {
  const RoutingCounts layout{num_experts_, num_ranks(), top_k_};
  std::vector<int32_t> counts(static_cast<size_t>(layout.size()), 0);
  if (!is_empty()) {
    const cudaStream_t stream = lanes_.stream(plan::Lane::kDispatch);
    GatherRoutingParams gather;
    gather.counts = counts_;
    gather.layout = layout;
    gather.idx = data_of<int32_t>(memory_.idx);
    gather.weight = data_of<float>(memory_.weight);
    for (size_t r = 0; r < peers_.size(); ++r) {
      EPS_CUDA(cudaStreamWaitEvent(stream, peers_[r].ready));
      gather.from.idx[r] = peers_[r].idx;
      gather.from.weight[r] = peers_[r].weight;
    }
    gather.sums = data_of<int32_t>(memory_.counts);
    gather.host_done = reinterpret_cast<uint32_t*>(host_counts_.data());
    gather.host_counts = data_of<int32_t>(host_counts_) + 1;
    gather.number = ++num_counted_;
    launch_gather_routing(gather, stream);
    wait_for_counts();
    std::copy_n(gather.host_counts, counts.size(), counts.begin());
  }
  const auto part = [&](int begin, int size) {
    return std::vector<int64_t>(counts.begin() + begin, counts.begin() + begin + size);
  };
  ops::PeerLoad out;
  out.rows = part(layout.load(), num_experts_);
  out.summary.local_load = part(layout.local_load(), num_experts_);
  out.summary.tokens_between = part(layout.tokens_between(), num_ranks() * num_ranks());
  out.summary.visits = part(layout.visits(), num_ranks() * (top_k_ + 1));
  // The token sum is arranged such that each rank returns one partial sum per token, whatever the number of ranks.
  out.summary.partials_between = out.summary.tokens_between;
  for (int r = 0; r < num_ranks(); ++r) {
    out.summary.partials_between[static_cast<size_t>(r) * static_cast<size_t>(num_ranks() + 1)] = 0;
  }
  return out;
}

void CudaPeerLayer::wait_for_counts() const {
  // Polling with a deadline ensures that a rank reports an error if the device of another rank hangs.
  constexpr std::chrono::milliseconds kCheck{1};
  const auto begin = std::chrono::steady_clock::now();
  auto next_check = begin + kCheck;
  const std::atomic_ref<uint32_t> done(*reinterpret_cast<uint32_t*>(host_counts_.data()));
  while (done.load(std::memory_order_acquire) != num_counted_) {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_check) {
      std::this_thread::yield();
      continue;
    }
    next_check = now + kCheck;
    const cudaError_t state = cudaStreamQuery(lanes_.stream(plan::Lane::kDispatch));
    if (state != cudaErrorNotReady) EPS_CUDA(state);
    if (now - begin > kDeviceTimeout) {
      throw Error(ErrorKind::kTimeout, fmt::format("rank {}", rank()),
                  fmt::format("its GPU waited {} s for the routing of all ranks", kDeviceTimeout.count()));
    }
  }
}

int64_t CudaPeerLayer::most_tokens_without_host() const { return flags_.is_usable() ? flags_.most_tokens() : 0; }

void CudaPeerLayer::set_rows(TensorView x) {
  EPS_CHECK_EQ(x.dim(0), counts_.tokens[rank()]);
  x_ = static_cast<const nv_bf16*>(x.data());
}

std::string CudaPeerLayer::why_not_flags(const plan::Plan& plan) const {
  if (!flags_.is_usable()) return "GPUs wait for each other's flags only if every rank has a GPU of its own";
  if (counts_.max_tokens > flags_.most_tokens()) {
    return fmt::format("got {} tokens on a rank to exchange through flags: wanted at most {}", counts_.max_tokens,
                       flags_.most_tokens());
  }
  const bool is_whole = plan.num_stages() == 1 && plan.stages.front().part == moe::TokenPart::kAll;
  if (!is_whole || !plan::is_chain(plan)) {
    return "the transport flags needs one stage with all rows, and ops that follow one another";
  }
  return "";
}

std::string CudaPeerLayer::why_not(const plan::Plan& plan) const {
  if (plan.transport == plan::Transport::kFlags) {
    if (std::string refusal = why_not_flags(plan); !refusal.empty()) return refusal;
  }
  if (plan.wire.dispatch != DType::kBF16 || plan.wire.combine != DType::kBF16) {
    return fmt::format("GPUs exchange rows in bf16: got {} for dispatch and {} for combine",
                       to_string(plan.wire.dispatch), to_string(plan.wire.combine));
  }
  int64_t slots = 0;
  for (const plan::Stage& stage : plan.stages) {
    for (const int32_t e : stage.experts) slots += placement().rank_of(e) == rank() ? 1 : 0;
    const auto r = static_cast<size_t>(rank());
    if (stage.gate_up_kernel[r] == moe::GemmKind::kDense || stage.down_kernel[r] == moe::GemmKind::kDense) {
      return "stages on several GPUs support only grouped GEMMs: got dense ones";
    }
  }
  if (slots > kMaxSlots)
    return fmt::format("got {} experts in the stages of one GPU: wanted at most {}", slots, kMaxSlots);
  return "";
}

void CudaPeerLayer::make_slots(const plan::Plan& plan) {
  const int experts_per_rank = placement().experts_per_rank();
  const int first = placement().first_expert(rank());
  std::ranges::fill(std::span(&slots_.slot[0][0], kMaxSlotExperts * 4), int16_t{-1});
  slots_.num_slots = 0;
  slot_begin_ = {0};
  rows_of_slot_.clear();
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const plan::Stage& stage = plan.stages[s];
    for (const int32_t e : stage.experts) {
      if (placement().rank_of(e) != rank()) continue;
      const auto slot = static_cast<int16_t>(slots_.num_slots++);
      slots_.stage_of_slot[slot] = static_cast<int16_t>(s);
      slots_.weight_of_slot[slot] = static_cast<int16_t>(e - first);
      for (int column = 0; column < 4; ++column) {
        if (takes(stage.part, column >= 2, column % 2 == 1)) slots_.slot[e][column] = slot;
      }
      const auto at = static_cast<size_t>(e);
      rows_of_slot_.push_back(moe::rows_in_part(load_.rows[at], load_.summary.local_load[at], stage.part));
    }
    slot_begin_.push_back(slots_.num_slots);
  }
  max_rows_ = std::accumulate(load_.rows.begin() + first, load_.rows.begin() + first + experts_per_rank, int64_t{0});
}

void CudaPeerLayer::lay_out_rows() {
  const auto num_stages = static_cast<int>(plan_->stages.size());
  memory_.workspace.reserve(std::max<size_t>(1, row_layout_workspace_bytes(counts_, slots_.num_slots, num_stages)));
  RowLayoutParams params;
  params.expert_idx = data_of<int32_t>(memory_.idx);
  params.top_k = top_k_;
  params.counts = counts_;
  params.num_stages = num_stages;
  params.workspace = memory_.workspace.data();
  params.slot_offsets = room<int32_t>(memory_.slot_offsets, slots_.num_slots + 1);
  params.weight_of_slot = room<int32_t>(memory_.weight_of_slot, slots_.num_slots);
  params.place = data_of<int32_t>(memory_.place);
  params.dispatch_begin = room<int32_t>(memory_.dispatch_begin, num_stages + 1);
  params.dispatch_tokens = data_of<int32_t>(memory_.dispatch_tokens);
  params.combine_begin = room<int32_t>(memory_.combine_begin, num_stages + 1);
  params.combine_tokens = data_of<int32_t>(memory_.combine_tokens);
  launch_lay_out_rows(params, slots_, lanes_.stream(plan::Lane::kDispatch));
}

void CudaPeerLayer::begin(const plan::Plan& plan, const ops::MoeWeights& weights, MutableTensorView out) {
  plan_ = &plan;
  weights_ = &weights;
  out_ = out;
  const size_t first = static_cast<size_t>(placement().first_expert(rank()));
  up_pool_ = as_cuda(*weights.gate_up[first]).pool;
  down_pool_ = as_cuda(*weights.down[first]).pool;
  EPS_CHECK(up_pool_ != nullptr && down_pool_ != nullptr, "the experts of a layer must be packed into pools");
  EPS_CHECK_EQ(up_pool_->count, placement().experts_per_rank());
  has_shared_ = false;
  combines_left_ = static_cast<int>(
      std::ranges::count_if(plan.ops, [](const plan::PlanOp& op) { return op.kind == plan::OpKind::kCombine; }));
  first_dispatch_ = last_dispatch_ = -1;
  for (const plan::PlanOp& op : plan.ops) {
    if (op.kind != plan::OpKind::kDispatch) continue;
    if (first_dispatch_ < 0) first_dispatch_ = op.stage;
    last_dispatch_ = op.stage;
  }
  lanes_.use_one_stream(uses_flags());
  if (uses_flags()) return begin_without_host();
  if (is_empty()) return;
  make_slots(plan);
  const int64_t inner = down_pool_->k;
  // Slightly larger than necessary, because loads differ between layers and each growth reallocates.
  const int64_t rows = max_rows_ + max_rows_ / 8;
  nv_bf16* x_rows = bf16_room(memory_.x_rows, rows, hidden_);
  bf16_room(memory_.act, rows, inner);
  if (!has_plain_experts(weights)) bf16_room(memory_.gate_up, rows, 2 * inner);
  bf16_room(memory_.rows, rows, hidden_);
  lay_out_rows();
  lanes_.wait_for(plan::Lane::kCompute, plan::Lane::kDispatch);
  lanes_.wait_for(plan::Lane::kCombine, plan::Lane::kDispatch);
  // The rank's own rows are gathered first, on all SMs, because they need no message.
  GatherRowsParams own;
  own.x = x_;
  own.row_of = data_of<int32_t>(memory_.place) + int64_t{rank()} * counts_.max_tokens * top_k_;
  own.tokens = counts_.tokens[rank()];
  own.top_k = top_k_;
  own.width = static_cast<int>(hidden_);
  own.out = x_rows;
  launch_gather_rows(own, lanes_.stream(plan::Lane::kCompute));
}

void CudaPeerLayer::reserve_without_host(const ops::MoeWeights& weights) {
  const auto first = static_cast<size_t>(placement().first_expert(rank()));
  const int64_t inner = as_cuda(*weights.down[first]).k;
  const int64_t shared_inner = weights.shared_down == nullptr ? 0 : as_cuda(*weights.shared_down).k;
  const Room wanted{.tokens = std::max(room_.tokens, few_tokens_room()),
                    .inner = std::max(room_.inner, inner),
                    .stored_inner = std::max(room_.stored_inner, has_plain_experts(weights) ? 0 : inner),
                    .shared_inner = std::max(room_.shared_inner, shared_inner)};
  if (wanted == room_) return;
  check_not_recording("PeerLayer::reserve_without_host");
  // All ranks get here in the same layer. Nothing is allocated on any of them while a kernel may wait.
  lanes_.wait();
  comm_.barrier();
  const int64_t rows = num_ranks() * wanted.tokens * top_k_;
  bf16_room(memory_.x_rows, rows, hidden_);
  bf16_room(memory_.act, rows, wanted.inner);
  bf16_room(memory_.rows, rows, hidden_);
  room<int32_t>(memory_.place, int64_t{num_ranks()} * flags_.most_tokens() * top_k_);
  room<int32_t>(memory_.slot_offsets, kMaxSlotExperts + 1);
  if (wanted.stored_inner > 0) bf16_room(memory_.gate_up, rows, 2 * wanted.stored_inner);
  if (shared_inner > 0) {
    shared_.reserve(weights, wanted.tokens);
    bf16_room(memory_.shared_out, wanted.tokens, hidden_);
  }
  comm_.barrier();
  room_ = wanted;
}

// Experts are slots in their own order, and the numbers of their rows are those that the plan expects.
void CudaPeerLayer::begin_without_host() {
  reserve_without_host(*weights_);
  const int experts_per_rank = placement().experts_per_rank();
  slot_begin_ = {0, experts_per_rank};
  max_rows_ = num_ranks() * few_tokens_room() * top_k_;
  const int64_t planned = plan_->stages.front().rows_per_rank[static_cast<size_t>(rank())];
  rows_of_slot_.clear();
  for (int e = 0; e < experts_per_rank; ++e) {
    rows_of_slot_.push_back(planned * (e + 1) / experts_per_rank - planned * e / experts_per_rank);
  }
}

int64_t CudaPeerLayer::num_rows(size_t stage) const {
  if (is_empty()) return 0;
  const auto begin = rows_of_slot_.begin() + slot_begin_[stage];
  return std::accumulate(begin, rows_of_slot_.begin() + slot_begin_[stage + 1], int64_t{0});
}

void CudaPeerLayer::run(const plan::PlanOp& op) {
  switch (op.kind) {
    case plan::OpKind::kDispatch: return dispatch(op.stage);
    case plan::OpKind::kGateUp: return gate_up(op.stage);
    case plan::OpKind::kSiluMul: return;  // fused into the preceding GEMM
    case plan::OpKind::kDown: return down(op.stage);
    case plan::OpKind::kReduce: return reduce(op.stage);
    case plan::OpKind::kCombine: return combine(op.stage);
    case plan::OpKind::kShared: return shared(op.share);
    case plan::OpKind::kFinish: return finish();
    case plan::OpKind::kEnter:
    case plan::OpKind::kLeave: break;
  }
  EPS_CHECK(false, "op {} is not supported between GPUs", plan::to_string(op.kind));
}

void CudaPeerLayer::dispatch(int stage) {
  if (uses_flags()) return send_tokens();
  if (is_empty()) return;
  const cudaStream_t lane = lanes_.stream(plan::Lane::kDispatch);
  if (stage == first_dispatch_) pull_rows(last_dispatch_ > first_dispatch_);
  if (last_dispatch_ == first_dispatch_) return;
  const auto s = static_cast<size_t>(stage);
  wait_for_counter(lane, data_of<int32_t>(written_) + s, written_after_[s]);
}

void CudaPeerLayer::send_tokens() {
  SendTokensParams send;
  send.sizes = flags_.sizes(num_experts_);
  send.flags = flags_.flags();
  for (int r = 0; r < num_ranks(); ++r) send.to[r] = flags_.inbox(r);
  send.num_tokens = counts_.tokens[rank()];
  send.x = x_;
  send.idx = own_idx_;
  send.weight = own_weight_;
  launch_send_tokens(send, lanes_.stream(plan::Lane::kDispatch));
}

// Waits for the tokens of all ranks, and gathers the rows of this rank's experts.
void CudaPeerLayer::place_tokens() {
  PlaceTokensParams params;
  params.sizes = flags_.sizes(num_experts_);
  params.flags = flags_.flags();
  params.from = flags_.inbox();
  params.x = x_;
  params.most_in_all = static_cast<int>(num_ranks() * few_tokens_room());
  params.offsets = data_of<int32_t>(memory_.slot_offsets);
  params.place = data_of<int32_t>(memory_.place);
  params.rows = data_of<nv_bf16>(memory_.x_rows);
  launch_place_tokens(params, lanes_.stream(plan::Lane::kCompute));
}

// Pulls the rows of all stages. If `in_parts`, the kernel runs beside the lane, and its parts are counted.
void CudaPeerLayer::pull_rows(bool in_parts) {
  PullRowsParams pull;
  for (size_t r = 0; r < peers_.size(); ++r) pull.from[r] = peers_[r].x;
  pull.row_bytes = hidden_ * int64_t{sizeof(nv_bf16)};
  pull.max_tokens = counts_.max_tokens;
  pull.list = {data_of<int32_t>(memory_.dispatch_tokens), data_of<int32_t>(memory_.dispatch_begin) + first_dispatch_};
  pull.places = data_of<int32_t>(memory_.place);
  pull.places_per_token = top_k_;
  pull.to = memory_.x_rows.data();
  pull.num_blocks = comm_sms();
  const cudaStream_t lane = lanes_.stream(plan::Lane::kDispatch);
  if (!in_parts) return launch_pull_rows(pull, lane);
  pull.num_parts = last_dispatch_ - first_dispatch_ + 1;
  pull.written = data_of<int32_t>(written_) + first_dispatch_;
  EPS_CUDA(cudaEventRecord(sorted_.get(), lane));
  EPS_CUDA(cudaStreamWaitEvent(pull_stream_.get(), sorted_.get()));
  launch_pull_rows(pull, pull_stream_.get());
  // Only now that the kernel is certain to count do the lane's waits for it make sense.
  for (int s = first_dispatch_; s <= last_dispatch_; ++s) {
    written_after_[static_cast<size_t>(s)] += static_cast<uint32_t>(pull.num_blocks * kRowMovers);
  }
}

// Whether messages run beside GEMMs.
bool CudaPeerLayer::overlaps() const { return num_ranks() > 1 && plan_->policy != plan::Policy::kSerial; }

// Whether the stage has messages.
bool CudaPeerLayer::sends(int stage) const {
  return plan_->stages[static_cast<size_t>(stage)].part != moe::TokenPart::kLocal;
}

// The SMs of a stage's first GEMM. It leaves some free if messages become ready at about the same time, because it
// would otherwise keep them waiting until its end.
int CudaPeerLayer::gemm_sms(int stage) const {
  const int budget = resolve_sms(plan_->sms.gemm);
  const bool messages_begin = overlaps() && (stage == 0 || sends(stage - 1));
  return messages_begin ? std::max(1, std::min(budget, resolve_sms(0) - comm_sms())) : budget;
}

void CudaPeerLayer::run_experts(int stage, const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x,
                                nv_bf16* y, int num_sms) {
  if (is_empty()) return;
  const auto begin = static_cast<size_t>(slot_begin_[static_cast<size_t>(stage)]);
  const auto count = static_cast<size_t>(slot_begin_[static_cast<size_t>(stage) + 1]) - begin;
  const int32_t* weights = uses_flags() ? nullptr : data_of<int32_t>(memory_.weight_of_slot) + begin;
  const GroupedGemm::Groups groups{data_of<int32_t>(memory_.slot_offsets) + begin, weights,
                                   std::span(rows_of_slot_).subspan(begin, count)};
  grouped_.run_groups(pool, epilogue, x, y, groups, max_rows_, num_sms, overlaps());
}

// The stage's rows, by slot. The host knows only approximately how many there are.
ExpertGroups CudaPeerLayer::groups(int stage) const {
  const int begin = slot_begin_[static_cast<size_t>(stage)];
  const int32_t* experts = uses_flags() ? nullptr : data_of<int32_t>(memory_.weight_of_slot) + begin;
  return {data_of<int32_t>(memory_.slot_offsets) + begin, experts, slot_begin_[static_cast<size_t>(stage) + 1] - begin,
          max_rows_};
}

void CudaPeerLayer::gate_up(int stage) {
  if (uses_flags()) place_tokens();
  const auto* x = data_of<nv_bf16>(memory_.x_rows);
  auto* act = data_of<nv_bf16>(memory_.act);
  if (has_plain_experts(*weights_)) {
    return run_experts(stage, *up_pool_, GroupedEpilogue::kSiluMul, x, act, gemm_sms(stage));
  }
  if (is_empty()) return;
  auto* gate_up = data_of<nv_bf16>(memory_.gate_up);
  run_experts(stage, *up_pool_, GroupedEpilogue::kStore, x, gate_up, gemm_sms(stage));
  launch_expert_swiglu({.gate_up = gate_up,
                        .bias = weights_->gate_up_bias.as<const float>(),
                        .swiglu = weights_->swiglu,
                        .groups = groups(stage),
                        .width = static_cast<int>(down_pool_->k),
                        .out = act},
                       lanes_.stream(plan::Lane::kCompute));
}

void CudaPeerLayer::down(int stage) {
  auto* rows = data_of<nv_bf16>(memory_.rows);
  run_experts(stage, *down_pool_, GroupedEpilogue::kStore, data_of<nv_bf16>(memory_.act), rows, plan_->sms.gemm);
  if (!weights_->down_bias || is_empty()) return;
  launch_expert_bias({.rows = rows,
                      .bias = weights_->down_bias.as<const float>(),
                      .groups = groups(stage),
                      .width = static_cast<int>(hidden_)},
                     lanes_.stream(plan::Lane::kCompute));
}

int CudaPeerLayer::comm_sms() const { return plan_->sms.comm > 0 ? plan_->sms.comm : kUnlimitedCommSms; }

TokenList CudaPeerLayer::complete_tokens(int stage) const {
  return {data_of<int32_t>(memory_.combine_tokens), data_of<int32_t>(memory_.combine_begin) + stage};
}

ExpertOutputs CudaPeerLayer::outputs() const {
  ExpertOutputs out;
  out.rows = data_of<nv_bf16>(memory_.rows);
  out.place = data_of<int32_t>(memory_.place);
  out.expert = uses_flags() ? flags_.inbox().idx : data_of<int32_t>(memory_.idx);
  out.weight = uses_flags() ? flags_.inbox().weight : data_of<float>(memory_.weight);
  out.top_k = top_k_;
  out.num_experts = num_experts_;
  out.width = static_cast<int>(hidden_);
  return out;
}

// Computes the partial sums of other ranks' tokens that are complete after this stage, and stores them contiguously for
// the kernel that sends them.
void CudaPeerLayer::reduce(int stage) {
  if (is_empty() || num_ranks() == 1) return;
  if (uses_flags()) return;  // fused into combine
  SumPartialsParams sum;
  sum.from = outputs();
  sum.counts = counts_;
  sum.list = complete_tokens(stage);
  sum.to = data_of<nv_bf16>(memory_.sums);
  launch_sum_partials(sum, lanes_.stream(plan::Lane::kCompute));
}

void CudaPeerLayer::combine(int stage) {
  if (uses_flags()) return send_sums();
  const cudaStream_t stream = lanes_.stream(plan::Lane::kCombine);
  if (!is_empty()) {
    PushRowsParams push;
    push.list = complete_tokens(stage);
    push.from = memory_.sums.data();
    push.row_bytes = hidden_ * int64_t{sizeof(nv_bf16)};
    push.max_tokens = counts_.max_tokens;
    for (size_t r = 0; r < peers_.size(); ++r) {
      push.to[r] = peers_[r].partials + int64_t{rank()} * counts_.max_tokens * hidden_;
    }
    push.num_blocks = comm_sms();
    launch_push_rows(push, stream);
  }
  if (--combines_left_ == 0) EPS_CUDA(cudaEventRecord(sent_.get(), stream));
}

// The numbering of tokens in memory that holds flags_.most_tokens() of each rank.
TokenCounts CudaPeerLayer::few_counts() const {
  TokenCounts out = counts_;
  out.max_tokens = flags_.most_tokens();
  return out;
}

void CudaPeerLayer::send_sums() {
  SendSumsParams send;
  send.from = outputs();
  send.counts = few_counts();
  send.flags = flags_.flags();
  send.num_tokens = flags_.inbox().num_tokens;
  send.most_others = static_cast<int>((num_ranks() - 1) * few_tokens_room());
  for (int r = 0; r < num_ranks(); ++r)
    send.to[r] = flags_.inbox(r).sums + int64_t{rank()} * flags_.most_tokens() * hidden_;
  launch_send_sums(send, lanes_.stream(plan::Lane::kCombine));
}

void CudaPeerLayer::shared(plan::TokenShare share) {
  if (weights_->shared_down == nullptr) return;
  const int64_t num_tokens = counts_.tokens[rank()];
  const int64_t begin = num_tokens * share.begin / 1000;
  const int64_t tokens = num_tokens * share.end / 1000 - begin;
  nv_bf16* out = bf16_room(memory_.shared_out, num_tokens, hidden_);
  has_shared_ = num_tokens > 0;
  if (tokens == 0) return;
  shared_.run(*weights_, x_ + begin * hidden_, tokens, num_tokens, plan_->sms.gemm, out + begin * hidden_);
}

void CudaPeerLayer::finish() {
  const cudaStream_t stream = lanes_.stream(plan::Lane::kCompute);
  FinishTokensParams params;
  params.from = outputs();
  params.counts = counts_;
  params.partials = data_of<nv_bf16>(memory_.partials);
  params.shared = has_shared_ ? data_of<nv_bf16>(memory_.shared_out) : nullptr;
  params.out = static_cast<nv_bf16*>(out_.data());
  if (uses_flags()) {
    params.counts = few_counts();
    params.partials = flags_.inbox().sums;
    return launch_finish_few_tokens(params, flags_.flags(), stream);
  }
  if (num_ranks() > 1) {
    comm_.barrier();  // every rank has recorded that its sums are sent
    for (const Published& peer : peers_) EPS_CUDA(cudaStreamWaitEvent(stream, peer.sent));
  }
  if (!is_empty()) launch_finish_tokens(params, stream);
}

}  // namespace eps::cuda
