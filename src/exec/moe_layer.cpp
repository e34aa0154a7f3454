#include "exec/moe_layer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "exec/predicted_events.h"
#include "ops/pick_token.h"

namespace eps::exec {
namespace {

// On a GPU, recording the times of an op costs about 2 µs, and reading them waits for the layer, so only one layer in
// this many is timed. The first timed layer is the second one, because the first layer also loads kernels and allocates
// memory. In most models every step then has one or more timed layers, at a different depth each time.
constexpr int64_t kLayersPerTiming = 16;

// The begin of the first op and the end of the last one; both 0 if there are no ops.
std::pair<int64_t, int64_t> span_ns(const std::vector<device::TimelineEvent>& events) {
  if (events.empty()) return {0, 0};
  return {std::ranges::min_element(events, {}, &device::TimelineEvent::begin_ns)->begin_ns,
          std::ranges::max_element(events, {}, &device::TimelineEvent::end_ns)->end_ns};
}

// Replaces the routing of a rank whose router logits are NaN or infinite. The gates of different devices would order
// such logits differently, so the rank marks its routing as invalid and all ranks report the error (see route_on_host).
moe::Routing invalid_routing(int64_t num_tokens, int top_k) {
  const auto num_rows = static_cast<size_t>(num_tokens * top_k);
  return {num_tokens, top_k, std::vector<int32_t>(num_rows, 0),
          std::vector<float>(num_rows, std::numeric_limits<float>::quiet_NaN())};
}

bool is_valid(const moe::Routing& routing) {
  return std::ranges::all_of(routing.weight, [](float w) { return std::isfinite(w); });
}

}  // namespace

MoeLayerRunner::MoeLayerRunner(ops::OpSet& ops, comm::Communicator& comm, const plan::Planner& planner,
                               plan::PipelineOption pipeline, TraceRecorder* trace, plan::Strategy strategy)
    : ops_(ops),
      comm_(comm),
      trace_(trace),
      peer_(comm.size() > 1 && !is_local(ops, comm, strategy) ? ops.make_peer_layer(comm) : nullptr),
      host_(ops, comm),
      executor_(layer_ops(), comm),
      // A layer that stays on one device has no messages to hide, so its plan only chooses kernels.
      plans_(planner,
             is_local(ops, comm, strategy) ? plan::PipelineOption{plan::PipelineOption::Mode::kOff, 1} : pipeline),
      shape_(planner.shape()),
      splits_experts_(strategy == plan::Strategy::kTpTp && comm.size() > 1),
      is_local_(is_local(ops, comm, strategy)),
      may_run_without_host_(strategy == plan::Strategy::kDpEp && (pipeline.mode == plan::PipelineOption::Mode::kAuto ||
                                                                  pipeline.mode == plan::PipelineOption::Mode::kOff)),
      logits_(ops.memory()),
      topk_idx_(ops.memory()),
      topk_weight_(ops.memory()),
      split_rows_(is_local_ && splits_experts_ ? std::make_unique<SplitRows>(ops, comm) : nullptr) {}

void MoeLayerRunner::begin_step(std::span<const int64_t> tokens_per_rank, int top_k) {
  tokens_per_rank_.assign(tokens_per_rank.begin(), tokens_per_rank.end());
  without_host_ = WithoutHost::kNo;
  const int64_t most = tokens_per_rank_.empty() ? 0 : std::ranges::max(tokens_per_rank_);
  most_tokens_class_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(1, most))));
  if (peer_) peer_->begin_step(tokens_per_rank_, top_k, shape_.hidden);
  if (split_rows_) split_rows_->begin_step(tokens_per_rank_);
}

bool MoeLayerRunner::can_run_without_host() const {
  return peer_ != nullptr && may_run_without_host_ && trace_ == nullptr &&
         std::ranges::max(tokens_per_rank_) <= peer_->most_tokens_without_host();
}

void MoeLayerRunner::check_peers() const {
  if (peer_) peer_->check();
}

void MoeLayerRunner::wait() noexcept {
  if (peer_) peer_->wait();
  if (!split_rows_) return;
  try {
    ops_.wait();
  } catch (const std::exception&) {  // the device has failed, so that nothing is running any more
  }
}

RouterError::RouterError(int layer)
    : Error(
          ErrorKind::kInput, fmt::format("layer {}'s router", layer),
          "the model produced NaN or Inf logits; try `epsmoe inspect`, and downloading the checkpoint's files again") {}

TensorView MoeLayerRunner::router_logits(const ops::GateParams& gate, const ops::RouterWeights& router, TensorView x) {
  const MutableTensorView logits = logits_.view(DType::kF32, {x.dim(0), gate.num_experts});
  const ops::LinearTask task{router.weight, x, logits};
  ops_.linear(std::span(&task, 1));
  if (router.bias) ops_.add_bias(logits, router.bias);
  return logits;
}

bool MoeLayerRunner::are_finite(TensorView logits) {
  const auto count = static_cast<size_t>(logits.numel());
  if (ops_.memory().on_host()) return ops::all_finite({logits.as<const float>(), count});
  host_logits_.resize(count);
  ops_.download(logits, host_logits_.data());
  return ops::all_finite(host_logits_);
}

void MoeLayerRunner::check_router(int layer, const ops::GateParams& gate, const ops::RouterWeights& router,
                                  TensorView x) {
  if (!are_finite(router_logits(gate, router, x))) throw RouterError(layer);
}

moe::Routing MoeLayerRunner::route(const ops::GateParams& gate, const ops::RouterWeights& router, TensorView x) {
  const int64_t num_tokens = x.dim(0);
  const TensorView logits = router_logits(gate, router, x);
  if (!are_finite(logits)) return invalid_routing(num_tokens, gate.top_k);
  const MutableTensorView idx = topk_idx_.view(DType::kI32, {num_tokens, gate.top_k});
  const MutableTensorView weight = topk_weight_.view(DType::kF32, {num_tokens, gate.top_k});
  ops_.gate(gate, logits, router.correction, idx, weight);
  moe::Routing routing{num_tokens, gate.top_k, {}, {}};
  routing.expert_idx.resize(static_cast<size_t>(idx.numel()));
  routing.weight.resize(static_cast<size_t>(idx.numel()));
  ops_.download(idx, routing.expert_idx.data());
  ops_.download(weight, routing.weight.data());
  moe::normalize_routing(routing, gate.num_experts);
  return routing;
}

// Gathers the routing of all ranks on every rank. This takes 8 bytes per row, which is little beside the 2·H or 4·H
// bytes of the row itself, and lets all ranks derive the same plan and the size of every message.
std::vector<moe::Routing> MoeLayerRunner::exchange(const moe::Routing& mine, int top_k) {
  const size_t idx_bytes = mine.expert_idx.size() * sizeof(int32_t);
  std::vector<std::byte> packed(2 * idx_bytes);
  if (idx_bytes > 0) {
    std::memcpy(packed.data(), mine.expert_idx.data(), idx_bytes);
    std::memcpy(packed.data() + idx_bytes, mine.weight.data(), idx_bytes);
  }
  std::vector<moe::Routing> all;
  for (const auto& bytes : comm_.all_gather(packed)) {
    const size_t num_rows = bytes.size() / 8;
    moe::Routing routing{static_cast<int64_t>(num_rows) / top_k, top_k, std::vector<int32_t>(num_rows),
                         std::vector<float>(num_rows)};
    if (num_rows > 0) {
      std::memcpy(routing.expert_idx.data(), bytes.data(), num_rows * 4);
      std::memcpy(routing.weight.data(), bytes.data() + num_rows * 4, num_rows * 4);
    }
    all.push_back(std::move(routing));
  }
  return all;
}

plan::MoeProblem MoeLayerRunner::route_on_host(int layer, const ops::GateParams& gate, const ops::RouterWeights& router,
                                               TensorView x) {
  routing_ = exchange(route(gate, router, x), gate.top_k);
  // Checked only after the exchange, so that all ranks find the same error and leave the step at the same place.
  if (!std::ranges::all_of(routing_, is_valid)) throw RouterError(layer);
  if (splits_experts_) {
    plan::MoeProblem problem = plan::make_split_problem(shape_, gate.num_experts, routing_);
    host_.set_routing(problem.placement, routing_, x);
    return problem;
  }
  const moe::ExpertPlacement placement = moe::place_experts(gate.num_experts, comm_.size());
  host_.set_routing(placement, routing_, x);
  return plan::make_problem(shape_, placement, routing_);
}

plan::MoeProblem MoeLayerRunner::route_on_peers(const ops::GateParams& gate, const ops::RouterWeights& router,
                                                TensorView x) {
  const moe::ExpertPlacement placement = moe::place_experts(gate.num_experts, comm_.size());
  peer_->route(gate, router_logits(gate, router, x), router.correction);
  ops::PeerLoad load = peer_->exchange(x);
  // Rows are sent in the compute dtype, partial sums in the activation dtype.
  return plan::make_problem(shape_, placement, std::move(load.rows), std::move(load.summary), tokens_per_rank_,
                            {ops_.compute_dtype(), ops_.activation_dtype()});
}

// The plan is the same for all loads, so the host neither needs nor waits for them.
void MoeLayerRunner::run_on_flags(const ops::GateParams& gate, const ops::RouterWeights& router,
                                  const ops::MoeWeights& weights, TensorView x, MutableTensorView out) {
  const moe::ExpertPlacement placement = moe::place_experts(gate.num_experts, comm_.size());
  peer_->record_times(false);
  peer_->route(gate, router_logits(gate, router, x), router.correction);
  peer_->set_rows(x);
  const plan::Wire wire{ops_.compute_dtype(), ops_.activation_dtype()};
  executor_.run(plans_.plan_without_load(placement, most_tokens_class_, wire), weights, out);
  count_local(kFewTokenKernels, 1);
  stats_.plans_made = plans_.num_misses();
}

bool MoeLayerRunner::times_next_layer() const {
  return peer_ == nullptr || trace_ != nullptr || stats_.num_layers_run % kLayersPerTiming == 1;
}

void MoeLayerRunner::run(int layer, const ops::GateParams& gate, const ops::RouterWeights& router,
                         const ops::MoeWeights& weights, TensorView x, MutableTensorView out) {
  if (is_local_) return run_local(*ops_.local_moe(), layer, gate, router, weights, x, out);
  if (without_host_ == WithoutHost::kYes) return run_on_flags(gate, router, weights, x, out);
  const int64_t begin = now_ns();
  const plan::MoeProblem problem = peer_ ? route_on_peers(gate, router, x) : route_on_host(layer, gate, router, x);
  const int64_t setup_begin = now_ns();
  const plan::Plan& plan = plans_.plan(problem);
  const bool is_timed = times_next_layer();
  if (peer_) peer_->record_times(is_timed);
  if (without_host_ == WithoutHost::kPrepare) peer_->reserve_without_host(weights);
  const int64_t end = now_ns();
  executor_.run(plan, weights, out);
  if (is_timed) record_times(layer, plan, {begin, end, setup_begin});
  count(layer, plan, problem);
}

void MoeLayerRunner::run_local(ops::LocalMoe& local, int layer, const ops::GateParams& gate,
                               const ops::RouterWeights& router, const ops::MoeWeights& weights, TensorView x,
                               MutableTensorView out) {
  const int64_t begin = now_ns();
  const MutableTensorView own_out = out;
  if (split_rows_) {
    x = split_rows_->enter(x);
    out = split_rows_->output(own_out);
  }
  local.route(gate, router_logits(gate, router, x), router.correction);
  ops::LocalKernels kernels = kFewTokenKernels;
  const bool is_few = x.dim(0) <= local.few_tokens();
  double predicted_us = 0;
  int64_t routed = begin;
  if (!is_few) {
    const plan::MoeProblem problem = plan::make_local_problem(shape_, local.load(), x.dim(0));
    const plan::Plan& plan = plans_.plan(problem);
    routed = now_ns();
    predicted_us = plan.makespan_us;
    kernels = {plan.stages.front().gate_up_kernel.front(), plan.stages.front().down_kernel.front()};
    add_load(layer, problem.load);
    stats_.plans_made = plans_.num_misses();
  }
  count_local(kernels, 1);
  local.run(weights, kernels, x, out);
  if (split_rows_) split_rows_->leave(own_out);
  if (trace_ == nullptr) return;
  // Without a trace the times are not measured, because that requires waiting for the device.
  ops_.wait();
  const int64_t end = now_ns();
  trace_->add(comm_.rank(), {{is_few ? "moe" : "gate", plan::Lane::kCompute, layer, -1, begin, is_few ? end : routed}});
  if (is_few) return;
  trace_->add(comm_.rank(), {{"experts", plan::Lane::kCompute, layer, -1, routed, end}});
  count_times(predicted_us, static_cast<double>(end - routed) * 1e-3);
}

void MoeLayerRunner::count_local(const ops::LocalKernels& kernels, int64_t num_layers) {
  stats_.num_layers_run += num_layers;
  stats_.layers_by_stages[1] += num_layers;
  stats_.stages_by_kernel[std::string(moe::to_string(kernels.gate_up))] += num_layers;
  stats_.stages_by_kernel[std::string(moe::to_string(kernels.down))] += num_layers;
}

void MoeLayerRunner::add_load(int layer, std::span<const int64_t> rows) {
  if (static_cast<int>(stats_.load.size()) <= layer) stats_.load.resize(static_cast<size_t>(layer) + 1);
  auto& load = stats_.load[static_cast<size_t>(layer)];
  load.resize(rows.size());
  for (size_t e = 0; e < load.size(); ++e) load[e] += rows[e];
}

void MoeLayerRunner::count(int layer, const plan::Plan& plan, const plan::MoeProblem& problem) {
  ++stats_.num_layers_run;
  ++stats_.layers_by_stages[plan.num_expert_stages()];
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    if (layer_ops().num_rows(s) == 0) continue;
    const auto r = static_cast<size_t>(comm_.rank());
    ++stats_.stages_by_kernel[std::string(moe::to_string(plan.stages[s].gate_up_kernel[r]))];
    ++stats_.stages_by_kernel[std::string(moe::to_string(plan.stages[s].down_kernel[r]))];
  }
  add_load(layer, problem.load);
  stats_.plans_made = plans_.num_misses();
}

void MoeLayerRunner::count_times(double predicted_us, double measured_us) {
  ++stats_.num_layers_timed;
  stats_.predicted_us += predicted_us;
  stats_.measured_us += measured_us;
  stats_.error_us += std::abs(predicted_us - measured_us);
}

void MoeLayerRunner::record_times(int layer, const plan::Plan& plan, const LayerTimes& times) {
  const std::vector<device::TimelineEvent>& events = layer_ops().lanes().timeline();
  stats_.overlap += measure_overlap(events);
  // A plan predicts only its ops, so the time before the first op is counted separately.
  const auto [begin_ns, end_ns] = span_ns(events);
  stats_.setup_us += static_cast<double>(begin_ns - times.setup_begin_ns) * 1e-3;
  count_times(plan.makespan_us, static_cast<double>(end_ns - begin_ns) * 1e-3);
  if (trace_ == nullptr) return;
  std::vector<device::TimelineEvent> traced = events;
  for (device::TimelineEvent& event : traced) event.layer = layer;
  traced.push_back({"gate", plan::Lane::kCompute, layer, -1, times.gate_begin_ns, times.gate_end_ns});
  trace_->add(comm_.rank(), traced);
  trace_->add_predicted(comm_.rank(), predicted_events(plan, layer, begin_ns));
}

}  // namespace eps::exec
