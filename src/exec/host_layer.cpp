#include "exec/host_layer.h"

#include <algorithm>
#include <cstring>

#include "base/thread_pool.h"

namespace eps::exec {
namespace {

std::byte* bytes_of(MutableTensorView view) { return static_cast<std::byte*>(view.data()); }

size_t row_bytes(const MutableTensorView& view) { return static_cast<size_t>(view.dim(1)) * size_of(view.dtype()); }

size_t count_rows(const std::vector<std::vector<int32_t>>& send) {
  size_t total = 0;
  for (const auto& rows : send) total += rows.size();
  return total;
}

// Writes to every page, so that the system provides the memory now, and not in the middle of the first op that uses it.
void touch_pages(const Buffer& buffer, ThreadPool* pool) {
  constexpr size_t kPage = 4096;  // pages may be larger, but not smaller
  constexpr size_t kPagesPerTask = 256;
  const size_t pages = (buffer.capacity() + kPage - 1) / kPage;
  const auto body = [&](int64_t task) {
    const size_t begin = static_cast<size_t>(task) * kPagesPerTask;
    for (size_t page = begin; page < std::min(pages, begin + kPagesPerTask); ++page) {
      buffer.data()[page * kPage] = std::byte{0};
    }
  };
  const auto tasks = static_cast<int64_t>((pages + kPagesPerTask - 1) / kPagesPerTask);
  if (pool != nullptr && tasks > 1) return pool->parallel_for(tasks, body);
  for (int64_t task = 0; task < tasks; ++task) body(task);
}

// Packs the rows for every rank into `staging` and exchanges them with all ranks. This runs on a communication lane and
// therefore copies on its own thread: the thread pool of the op set is in use by the compute lane. `pool`, which may be
// null, is only polled for a request to stop, because many rows take seconds to copy.
void exchange_rows(comm::Communicator& comm, const ThreadPool* pool, comm::Channel channel,
                   const std::vector<std::vector<int32_t>>& send, MutableTensorView source,
                   std::span<const moe::Span64> recv, MutableTensorView into, Buffer& staging) {
  const size_t width = row_bytes(into);
  EPS_CHECK_LE(count_rows(send) * width, staging.capacity());
  std::byte* next = staging.data();
  std::vector<comm::ConstBytes> out;
  for (const auto& rows : send) {
    const std::byte* begin = next;
    for (const int32_t row : rows) {
      if (pool != nullptr) pool->check_stop();
      std::memcpy(next, bytes_of(source) + static_cast<size_t>(row) * width, width);
      next += width;
    }
    out.emplace_back(begin, rows.size() * width);
  }
  std::vector<comm::MutableBytes> in;
  for (const moe::Span64& span : recv) {
    in.emplace_back(bytes_of(into) + static_cast<size_t>(span.begin) * width, static_cast<size_t>(span.count) * width);
  }
  comm.all_to_all(channel, out, in);
}

}  // namespace

void HostLayer::set_routing(const moe::ExpertPlacement& placement, std::span<const moe::Routing> routing,
                            TensorView x) {
  placement_ = placement;
  routing_ = routing;
  x_ = x;
}

std::string HostLayer::why_not(const plan::Plan& plan) const {
  const plan::Wire supported{ops_.compute_dtype(), DType::kF32};
  if (plan.wire != supported) {
    return fmt::format("this layer dispatches rows in {} and combines them in {}, the plan in {} and {}",
                       to_string(supported.dispatch), to_string(supported.combine), to_string(plan.wire.dispatch),
                       to_string(plan.wire.combine));
  }
  if (plan.transport != plan::Transport::kMessages) {
    return fmt::format("ranks on the host exchange messages: got the transport {}", plan::to_string(plan.transport));
  }
  if (plan.sms != plan::SmBudget{}) {
    return fmt::format("this device has no SMs, but the plan reserves {} for communication and {} for GEMMs",
                       plan.sms.comm, plan.sms.gemm);
  }
  return "";
}

void HostLayer::begin(const plan::Plan& plan, const ops::MoeWeights& weights, MutableTensorView out) {
  plan_ = &plan;
  weights_ = &weights;
  out_ = out;
  is_split_ = plan.strategy == plan::Strategy::kTpTp;
  std::vector<int64_t> tokens;
  for (const moe::Routing& routing : routing_) tokens.push_back(routing.num_tokens);
  shares_ = comm::RowShares(tokens);
  moe::StageMap stages(placement_.num_experts, plan.num_stages());
  for (int s = 0; s < plan.num_stages(); ++s) {
    const plan::Stage& stage = plan.stages[static_cast<size_t>(s)];
    stages.add(s, stage.experts, stage.part);
  }
  layout_ = make_layout(stages);
  EPS_CHECK_EQ(shares_.count(comm_.rank()), x_.dim(0));
  EPS_CHECK_EQ(layout_.num_tokens, is_split_ ? shares_.num_rows() : x_.dim(0));
  hidden_ = x_.dim(1);
  const int first = is_split_ ? 0 : placement_.first_expert(comm_.rank());
  inner_ = weights.down[static_cast<size_t>(first)]->in_features();
  prepare();
}

moe::RowLayout HostLayer::make_layout(const moe::StageMap& stages) {
  if (!is_split_) return moe::make_row_layout(routing_, placement_, stages, comm_.rank());
  all_tokens_ = {0, routing_.front().top_k, {}, {}};
  for (const moe::Routing& routing : routing_) {
    all_tokens_.num_tokens += routing.num_tokens;
    all_tokens_.expert_idx.insert(all_tokens_.expert_idx.end(), routing.expert_idx.begin(), routing.expert_idx.end());
    all_tokens_.weight.insert(all_tokens_.weight.end(), routing.weight.begin(), routing.weight.end());
  }
  return moe::make_row_layout(std::span(&all_tokens_, 1), moe::place_experts(placement_.num_experts, 1), stages, 0);
}

void HostLayer::run(const plan::PlanOp& op) {
  if (op.stage < 0) {
    switch (op.kind) {
      case plan::OpKind::kEnter: return enter();
      case plan::OpKind::kShared: return shared(op.share);
      case plan::OpKind::kFinish: return finish();
      case plan::OpKind::kLeave: return leave();
      default: EPS_CHECK(false, "op {} belongs to a stage", plan::to_string(op.kind));
    }
  }
  const auto rank = static_cast<size_t>(comm_.rank());
  const moe::StageLayout& stage = layout_.stages[static_cast<size_t>(op.stage)];
  const plan::Stage& planned = plan_->stages[static_cast<size_t>(op.stage)];
  switch (op.kind) {
    case plan::OpKind::kDispatch: return dispatch(stage);
    case plan::OpKind::kGateUp: return gate_up(stage, planned.gate_up_kernel[rank]);
    case plan::OpKind::kSiluMul: return silu_mul(stage);
    case plan::OpKind::kDown: return down(stage, planned.down_kernel[rank]);
    case plan::OpKind::kReduce: return reduce(stage);
    case plan::OpKind::kCombine: return combine(stage);
    default: EPS_CHECK(false, "op {} does not belong to a stage", plan::to_string(op.kind));
  }
}

MutableTensorView HostLayer::reserve(Buffer& buffer, DType dtype, const Shape& shape) {
  const size_t before = buffer.capacity();
  const MutableTensorView view = buffer.view(dtype, shape);
  if (buffer.capacity() > before) touch_pages(buffer, ops_.thread_pool());
  return view;
}

// Sizes all memory of the layer before its lanes start, so that no op waits for memory.
void HostLayer::prepare() {
  const DType compute = ops_.compute_dtype();
  int64_t stage_rows = 0;
  size_t sent = 1;
  size_t returned = 1;
  for (const moe::StageLayout& stage : layout_.stages) {
    stage_rows = std::max(stage_rows, stage.row_end - stage.row_begin);
    sent = std::max(sent, count_rows(stage.send_tokens));
    returned = std::max(returned, count_rows(stage.return_rows));
  }
  x_compute_ = reserve(memory_.x, compute, {layout_.num_tokens, hidden_});
  recv_tokens_ = reserve(memory_.recv_x, compute, {layout_.num_recv_tokens, hidden_});
  reserve(memory_.stage_x, compute, {stage_rows, hidden_});
  gate_up_ = reserve(memory_.gate_up, DType::kF32, {stage_rows, 2 * inner_});
  act_ = reserve(memory_.act, compute, {stage_rows, inner_});
  rows_ = reserve(memory_.rows, DType::kF32, {layout_.num_rows, hidden_});
  partials_ = reserve(memory_.partials, DType::kF32, {layout_.num_recv_partials, hidden_});
  shared_out_ = reserve(memory_.shared_out, DType::kF32, {layout_.num_tokens, hidden_});
  if (weights_->shared_down != nullptr) {
    const int64_t inner = weights_->shared_down->in_features();
    int64_t tokens = 0;  // of the largest share
    for (const plan::PlanOp& op : plan_->ops) {
      if (op.kind != plan::OpKind::kShared) continue;
      const auto [begin, end] = tokens_of(op.share);
      tokens = std::max(tokens, end - begin);
    }
    reserve(memory_.shared_gate_up, DType::kF32, {tokens, 2 * inner});
    reserve(memory_.shared_act, compute, {tokens, inner});
  }
  if (is_split_) sums_ = reserve(memory_.sums, DType::kF32, {layout_.num_tokens, hidden_});
  if (comm_.size() > 1 && !is_split_) {
    reserve(memory_.send_tokens, compute, {static_cast<int64_t>(sent), hidden_});
    reserve(memory_.send_partials, DType::kF32, {static_cast<int64_t>(returned), hidden_});
  }
  const int64_t begin = is_split_ ? shares_.begin(comm_.rank()) : 0;
  ops_.to_compute(x_, x_compute_.rows(begin, begin + x_.dim(0)));
}

void HostLayer::enter() { enter_.all_gather(shares_, x_compute_); }

void HostLayer::leave() { leave_.reduce_scatter(shares_, sums_, out_); }

std::pair<int64_t, int64_t> HostLayer::tokens_of(plan::TokenShare share) const {
  return {layout_.num_tokens * share.begin / 1000, layout_.num_tokens * share.end / 1000};
}

void HostLayer::dispatch(const moe::StageLayout& stage) {
  exchange_rows(comm_, ops_.thread_pool(), comm::Channel::kDispatch, stage.send_tokens, x_compute_, stage.recv_tokens,
                recv_tokens_, memory_.send_tokens);
}

std::byte* HostLayer::row_source(int64_t row) const {
  const moe::RowRef ref = layout_.row_token[static_cast<size_t>(row)];
  return bytes_of(ref.remote ? recv_tokens_ : x_compute_) + static_cast<size_t>(ref.index) * row_bytes(x_compute_);
}

void HostLayer::run_gemms(std::span<const ops::LinearTask> tasks, moe::GemmKind kernel) {
  if (kernel == moe::GemmKind::kGrouped) {
    ops_.linear(tasks);
    return;
  }
  for (const ops::LinearTask& task : tasks) ops_.linear(std::span(&task, 1));
}

void HostLayer::gate_up(const moe::StageLayout& stage, moe::GemmKind kernel) {
  const int64_t num_rows = stage.row_end - stage.row_begin;
  const MutableTensorView x = memory_.stage_x.view(ops_.compute_dtype(), {num_rows, hidden_});
  std::vector<const std::byte*> sources;
  sources.reserve(static_cast<size_t>(num_rows));
  for (int64_t row = stage.row_begin; row < stage.row_end; ++row) sources.push_back(row_source(row));
  ops_.gather_rows(sources, x);
  std::vector<ops::LinearTask> tasks;
  for (const moe::ExpertRows& block : stage.experts) {
    const int64_t begin = block.begin - stage.row_begin;
    const int64_t end = block.end - stage.row_begin;
    tasks.push_back(
        {weights_->gate_up[static_cast<size_t>(block.expert)], x.rows(begin, end), gate_up_.rows(begin, end)});
  }
  run_gemms(tasks, kernel);
  add_biases(stage, weights_->gate_up_bias, gate_up_, stage.row_begin);
}

// Adds each expert's bias to its rows; `first` is the number of the row that `rows` begins with.
void HostLayer::add_biases(const moe::StageLayout& stage, TensorView bias, MutableTensorView rows, int64_t first) {
  if (!bias) return;
  const int64_t first_expert = is_split_ ? 0 : int64_t{comm_.rank()} * bias.dim(0);
  for (const moe::ExpertRows& block : stage.experts) {
    const int64_t local = block.expert - first_expert;
    ops_.add_bias(rows.rows(block.begin - first, block.end - first), bias.rows(local, local + 1));
  }
}

void HostLayer::silu_mul(const moe::StageLayout& stage) {
  const int64_t num_rows = stage.row_end - stage.row_begin;
  const MutableTensorView act = act_.rows(0, num_rows);
  if (weights_->swiglu == ops::SwigluParams{}) {
    ops_.silu_mul(gate_up_.rows(0, num_rows), act);
  } else {
    ops_.clamped_swiglu(weights_->swiglu, gate_up_.rows(0, num_rows), act);
  }
}

void HostLayer::down(const moe::StageLayout& stage, moe::GemmKind kernel) {
  std::vector<ops::LinearTask> tasks;
  for (const moe::ExpertRows& block : stage.experts) {
    tasks.push_back({weights_->down[static_cast<size_t>(block.expert)],
                     act_.rows(block.begin - stage.row_begin, block.end - stage.row_begin),
                     rows_.rows(block.begin, block.end)});
  }
  run_gemms(tasks, kernel);
  add_biases(stage, weights_->down_bias, rows_, 0);
}

void HostLayer::reduce(const moe::StageLayout& stage) {
  ops_.scale_rows(
      rows_.rows(stage.row_begin, stage.row_end),
      std::span(layout_.row_weight)
          .subspan(static_cast<size_t>(stage.row_begin), static_cast<size_t>(stage.row_end - stage.row_begin)));
  std::vector<ops::RowPair> pairs;
  pairs.reserve(stage.adds.size());
  float* rows = rows_.as<float>();
  for (const moe::RowAdd& add : stage.adds) {
    pairs.push_back({rows + add.dst.index * hidden_, rows + add.src.index * hidden_});
  }
  ops_.add_rows(pairs, hidden_);
}

void HostLayer::combine(const moe::StageLayout& stage) {
  exchange_rows(comm_, ops_.thread_pool(), comm::Channel::kCombine, stage.return_rows, rows_, stage.recv_partials,
                partials_, memory_.send_partials);
}

void HostLayer::shared(plan::TokenShare share) {
  const auto [begin, end] = tokens_of(share);
  if (weights_->shared_down == nullptr || begin == end) return;
  const int64_t inner = weights_->shared_down->in_features();
  const MutableTensorView gate_up = memory_.shared_gate_up.view(DType::kF32, {end - begin, 2 * inner});
  const MutableTensorView act = memory_.shared_act.view(ops_.compute_dtype(), {end - begin, inner});
  const ops::LinearTask up_task{weights_->shared_gate_up, x_compute_.rows(begin, end), gate_up};
  ops_.linear(std::span(&up_task, 1));
  ops_.silu_mul(gate_up, act);
  const MutableTensorView out = shared_out_.rows(begin, end);
  const ops::LinearTask down_task{weights_->shared_down, act, out};
  ops_.linear(std::span(&down_task, 1));
  if (weights_->shared_gate == nullptr) return;
  const MutableTensorView logits = memory_.shared_logits.view(DType::kF32, {end - begin, 1});
  const ops::LinearTask gate_task{weights_->shared_gate, x_compute_.rows(begin, end), logits};
  ops_.linear(std::span(&gate_task, 1));
  ops_.scale_by_sigmoid(out, logits);
}

void HostLayer::finish() {
  const auto at = [this](moe::RowRef ref) {
    return (ref.remote ? partials_ : rows_).as<float>() + int64_t{ref.index} * hidden_;
  };
  std::vector<ops::RowPair> pairs;
  pairs.reserve(layout_.home_adds.size());
  for (const moe::RowAdd& add : layout_.home_adds) pairs.push_back({at(add.dst), at(add.src)});
  ops_.add_rows(pairs, hidden_);
  std::vector<const std::byte*> sums;
  sums.reserve(layout_.token_sum.size());
  for (const moe::RowRef ref : layout_.token_sum) sums.push_back(reinterpret_cast<const std::byte*>(at(ref)));
  const MutableTensorView out = is_split_ ? sums_ : out_;
  ops_.gather_rows(sums, out);
  if (weights_->shared_down != nullptr) ops_.add(out, shared_out_);
}

}  // namespace eps::exec
