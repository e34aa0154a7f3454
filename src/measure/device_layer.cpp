#include "measure/device_layer.h"

#include "measure/fill.h"

#include <cmath>

#include "base/clock.h"

namespace eps::measure {
namespace {

constexpr ops::LocalKernels kAllDense{moe::GemmKind::kDense, moe::GemmKind::kDense};
constexpr ops::LocalKernels kAllGrouped{moe::GemmKind::kGrouped, moe::GemmKind::kGrouped};

}  // namespace

DeviceLayer::DeviceLayer(ops::OpSet& ops, const model::LayerWeights& layer, const moe::Routing& routing,
                         int num_experts, int64_t hidden, int64_t inner, uint64_t seed)
    : ops_(ops),
      weights_(model::rank_weights(layer, moe::place_experts(num_experts, 1), 0)),
      num_experts_(num_experts),
      num_tokens_(routing.num_tokens),
      hidden_(hidden),
      load_(moe::count_rows(std::span(&routing, 1), num_experts)),
      gemms_(ops, layer, hidden, inner, routing.num_tokens * routing.top_k, seed),
      x_memory_(ops.memory()),
      out_memory_(ops.memory()),
      idx_memory_(ops.memory()),
      weight_memory_(ops.memory()),
      shared_memory_(ops.memory()),
      shared_act_memory_(ops.memory()) {
  x_ = x_memory_.view(ops.compute_dtype(), {num_tokens_, hidden});
  fill_normal(ops, x_, seed + 1);
  out_ = out_memory_.view(ops.activation_dtype(), {num_tokens_, hidden});
  idx_ = idx_memory_.view(DType::kI32, {num_tokens_, routing.top_k});
  weight_ = weight_memory_.view(DType::kF32, {num_tokens_, routing.top_k});
  ops.upload(routing.expert_idx.data(), idx_);
  ops.upload(routing.weight.data(), weight_);
}

double DeviceLayer::time_layer(const ops::LocalKernels& kernels) {
  ops::LocalMoe& local = *ops_.local_moe();
  ops_.wait();
  const int64_t begin = now_ns();
  local.set_routing(num_experts_, idx_, weight_);
  local.load();  // timed as well, because a plan needs the load to choose kernels
  local.run(weights_, kernels, x_, out_);
  ops_.wait();
  return static_cast<double>(now_ns() - begin) * 1e-3;
}

double DeviceLayer::time_shared() {
  if (weights_.shared_down == nullptr) return 0;
  const int64_t inner = weights_.shared_down->in_features();
  const MutableTensorView gate_up = shared_memory_.view(ops_.activation_dtype(), {num_tokens_, 2 * inner});
  const MutableTensorView act = shared_act_memory_.view(ops_.compute_dtype(), {num_tokens_, inner});
  const ops::LinearTask up{weights_.shared_gate_up, x_, gate_up};
  const ops::LinearTask down{weights_.shared_down, act, out_};
  ops_.silu_mul(gate_up, act);
  ops_.wait();
  const int64_t begin = now_ns();
  ops_.linear(std::span(&up, 1));
  ops_.linear(std::span(&down, 1));
  ops_.wait();
  return static_cast<double>(now_ns() - begin) * 1e-3;
}

double DeviceLayer::time_gemms(const ops::LocalKernels& kernels) {
  const double up_us = gemms_.time(load_, kernels.gate_up).first;
  return up_us + gemms_.time(load_, kernels.down).second + time_shared();
}

double DeviceLayer::time_baseline() { return gemms_.time_calls_alone(load_) + time_shared(); }

std::vector<float> DeviceLayer::output(const ops::LocalKernels& kernels) {
  time_layer(kernels);
  std::vector<bf16> rounded(static_cast<size_t>(num_tokens_ * hidden_));
  ops_.download(out_, rounded.data());
  std::vector<float> out;
  out.reserve(rounded.size());
  for (const bf16 v : rounded) out.push_back(to_float(v));
  return out;
}

double DeviceLayer::compare_kernels() {
  const std::vector<float> ours = output(kAllGrouped);
  const std::vector<float> theirs = output(kAllDense);
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const double d = static_cast<double>(ours[i]) - theirs[i];
    difference += d * d;
    size += static_cast<double>(theirs[i]) * theirs[i];
  }
  // Values that are rounded to bf16, with 2^-9 each: on both sides the product of gate and up, the row of each expert
  // and the sum of the token; with cuBLAS also gate and up.
  constexpr double kRoundings = 8;
  const double allowed = kRoundings * 0x1p-9;
  return std::sqrt(difference / size) / allowed;
}

}  // namespace eps::measure
