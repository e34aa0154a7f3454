#include "measure/layer_baseline.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/stop.h"
#include "engine/factory.h"
#include "tensor/widen.h"

namespace eps::measure {
namespace {

constexpr double kF32Roundoff = 0x1p-24;
constexpr double kBf16Roundoff = 0x1p-9;

// Errors are modelled as random, and this many standard deviations are allowed. Among the millions of elements of a
// layer some deviate by five, and the weights of real models are not quite independent of their inputs.
constexpr double kDeviations = 8;

// An upper bound for the standard deviation of the difference between two f32 sums of the same products x·w, in units
// of |x| |w|. The partial sum of j terms of random sign grows as sqrt(j), so the squared roundings of all partial sums
// add up to at most half of (u |x| |w|)^2.
constexpr double kTwoSums = std::numbers::sqrt2 * kF32Roundoff;

// The number of multiply-adds of each thread in one call of oneDNN, which cannot be interrupted: about 0.1 s, as in
// ops/cpu/gemm_schedule.cpp. Such calls multiply a weight by hundreds of rows, so a single call for all rows would
// hardly be faster.
constexpr double kMostCost = 4e9;

// Uses eight independent sums, so that the compiler can vectorise the loop: weights have many millions of elements.
double norm_of(const float* values, int64_t n) {
  constexpr int64_t kLanes = 8;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane] * values[i + lane];
  }
  double square = 0;
  for (; i < n; ++i) square += static_cast<double>(values[i] * values[i]);
  for (const float lane : lanes) square += static_cast<double>(lane);
  return std::sqrt(square);
}

void narrow(const float* from, int64_t n, MutableTensorView out, int64_t offset) {
  if (out.dtype() == DType::kF32) {
    std::copy_n(from, n, out.as<float>() + offset);
    return;
  }
  bf16* to = out.as<bf16>() + offset;
  for (int64_t i = 0; i < n; ++i) to[i] = to_bf16(from[i]);
}

// Converts [rows, k] to the dtype of `out`, and updates `sizes` with the sizes of the rows.
void convert_rows(const TensorView& from, MutableTensorView out, RowSizes& sizes, const StopToken& stop) {
  const int64_t width = from.dim(1);
  std::vector<float> row(static_cast<size_t>(width));
  for (int64_t r = 0; r < from.dim(0); ++r) {
    throw_if_stopped(stop);
    widen_to_f32(from.rows(r, r + 1), row.data());
    sizes.norm = std::max(sizes.norm, norm_of(row.data(), width));
    float largest = 0;
    for (const float v : row) largest = std::max(largest, std::abs(v));
    sizes.element = std::max(sizes.element, static_cast<double>(largest));
    narrow(row.data(), width, out, r * width);
  }
}

}  // namespace

LayerBaseline::LayerBaseline(const arch::ModelSpec& spec, const arch::Family& family, int layer,
                             model::WeightSource& source, DType compute, int num_threads, StopToken stop)
    : hidden_(spec.hidden),
      shared_inner_(spec.moe.shared_inner),
      compute_(compute),
      num_threads_(num_threads),
      stop_(stop) {
  for (int e = 0; e < spec.moe.gate.num_experts; ++e) {
    mlps_.push_back(make_mlp(family.expert_names(spec, layer, e), spec.moe.inner, source));
  }
  if (shared_inner_ > 0) mlps_.push_back(make_mlp(family.layer_names(spec, layer).shared, shared_inner_, source));
}

LayerBaseline::Mlp LayerBaseline::make_mlp(const arch::MlpNames& names, int64_t inner, model::WeightSource& source) {
  Mlp mlp;
  mlp.inner = inner;
  Buffer memory;
  const MutableTensorView stacked = memory.view(compute_, {2 * inner, hidden_});
  convert_rows(source.get(names.gate, {inner, hidden_}), stacked.rows(0, inner), mlp.gate_up_rows, stop_);
  convert_rows(source.get(names.up, {inner, hidden_}), stacked.rows(inner, 2 * inner), mlp.gate_up_rows, stop_);
  mlp.gate_up = engine::make_gemm_baseline(stacked, num_threads_);
  const MutableTensorView down = memory.view(compute_, {hidden_, inner});
  convert_rows(source.get(names.down, {hidden_, inner}), down, mlp.down_rows, stop_);
  mlp.down = engine::make_gemm_baseline(down, num_threads_);
  for (const arch::StoredTensor* weight : {&names.gate, &names.up, &names.down}) source.release(*weight);
  return mlp;
}

void LayerBaseline::assign_rows(std::span<const moe::Routing> routing) {
  for (Mlp& mlp : mlps_) {
    mlp.tokens.clear();
    mlp.weight.clear();
  }
  int64_t token = 0;
  for (const moe::Routing& rank : routing) {
    for (int64_t t = 0; t < rank.num_tokens; ++t, ++token) {
      for (int i = 0; i < rank.top_k; ++i) {
        Mlp& mlp = mlps_[static_cast<size_t>(rank.experts_of(t)[static_cast<size_t>(i)])];
        mlp.tokens.push_back(token);
        mlp.weight.push_back(rank.weights_of(t)[static_cast<size_t>(i)]);
      }
      if (shared_inner_ == 0) continue;
      mlps_.back().tokens.push_back(token);
      mlps_.back().weight.push_back(1.0F);
    }
  }
}

void LayerBaseline::prepare(TensorView x, std::span<const moe::Routing> routing) {
  assign_rows(routing);
  const int64_t num_tokens = x.dim(0);
  num_outputs_ = num_tokens * hidden_;
  out_.reserve(static_cast<size_t>(num_outputs_) * sizeof(double));
  for (int64_t token = 0; token < num_tokens; ++token) {
    throw_if_stopped(stop_);
    std::fill_n(outputs() + token * hidden_, hidden_, 0.0);
  }
  tolerance_.assign(static_cast<size_t>(num_tokens), 0.0);
  for (Mlp& mlp : mlps_) run_mlp(mlp, x);
  for (double& t : tolerance_) t += 1e-30;  // with all-zero weights, both outputs and the tolerance would be 0
}

void LayerBaseline::run_mlp(Mlp& mlp, TensorView x) {
  const auto rows = std::ssize(mlp.tokens);
  const MutableTensorView in = mlp.x.view(compute_, {rows, hidden_});
  mlp.gate_up_out.view(DType::kF32, {rows, 2 * mlp.inner});
  mlp.act.view(compute_, {rows, mlp.inner});
  float* out = mlp.out.view(DType::kF32, {rows, hidden_}).as<float>();
  if (rows == 0) return;
  std::vector<double> x_norm;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t token = mlp.tokens[static_cast<size_t>(r)];
    RowSizes row;
    convert_rows(x.rows(token, token + 1), in.rows(r, r + 1), row, stop_);
    x_norm.push_back(row.norm);
  }
  multiply_gate_up(mlp);
  std::vector<double> error;
  for (int64_t r = 0; r < rows; ++r) {
    throw_if_stopped(stop_);
    error.push_back(activate(mlp, r, x_norm[static_cast<size_t>(r)]));
  }
  multiply_down(mlp);
  for (int64_t r = 0; r < rows; ++r) {
    throw_if_stopped(stop_);
    const auto token = static_cast<size_t>(mlp.tokens[static_cast<size_t>(r)]);
    const double weight = mlp.weight[static_cast<size_t>(r)];
    double* sum = outputs() + token * static_cast<size_t>(hidden_);
    for (int64_t i = 0; i < hidden_; ++i) sum[i] += weight * static_cast<double>(out[r * hidden_ + i]);
    tolerance_[token] += weight * error[static_cast<size_t>(r)];
  }
}

// Computes act = silu(gate) * up of one row. Returns a first-order bound for the difference between two computations of
// the row's contribution to an element of the layer's output:
//
//   gate, up   d = kTwoSums |x| |W|, one standard deviation of each element
//   act        |silu'| <= 1.1 and |silu(g)| <= |g|, so the vector's error has the norm d (1.1 |up| + |gate|); exp and
//              what follows it take 16 f32 roundings on both sides together; in bf16 each side rounds act once more
//   down       that error is multiplied by weights of random sign and size |W| / sqrt(I), or, if one element of act
//              outweighs all others, by its weight, which is at most the largest one. The sum of down itself adds
//              kTwoSums |act| |W|
//   adding up  the sum over the experts of a token has fewer roundings of smaller values; doubling the last term
//              covers them
double LayerBaseline::activate(Mlp& mlp, int64_t row, double x_norm) const {
  const int64_t inner = mlp.inner;
  const float* gate = reinterpret_cast<const float*>(mlp.gate_up_out.data()) + row * 2 * inner;
  const float* up = gate + inner;
  std::vector<float> act(static_cast<size_t>(inner));
  for (int64_t i = 0; i < inner; ++i) act[static_cast<size_t>(i)] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
  const double act_norm = norm_of(act.data(), inner);
  narrow(act.data(), inner, mlp.act.view(compute_, {std::ssize(mlp.tokens), inner}), row * inner);

  const double d = kTwoSums * x_norm * mlp.gate_up_rows.norm;
  const double rounding = 16 * kF32Roundoff + (compute_ == DType::kBF16 ? 2 * kBf16Roundoff : 0.0);
  const double act_error = d * (1.1 * norm_of(up, inner) + norm_of(gate, inner)) + rounding * act_norm;
  const RowSizes& w = mlp.down_rows;
  const double met = std::max(kDeviations * w.norm / std::sqrt(static_cast<double>(inner)), w.element);
  return met * act_error + kDeviations * 2 * kTwoSums * act_norm * w.norm;
}

void LayerBaseline::run_gemms() {
  for (Mlp& mlp : mlps_) {
    multiply_gate_up(mlp);
    multiply_down(mlp);
  }
}

// Rows that one call multiplies with a weight of hidden x `columns`: all, or an even part of them.
int64_t LayerBaseline::rows_of_call(int64_t rows, int64_t columns) const {
  const double cost = static_cast<double>(rows) * static_cast<double>(hidden_) * static_cast<double>(columns);
  const auto calls = static_cast<int64_t>(std::ceil(cost / (kMostCost * num_threads_)));
  return calls <= 1 ? rows : (rows + calls - 1) / calls;
}

void LayerBaseline::multiply_gate_up(const Mlp& mlp) const {
  const auto rows = std::ssize(mlp.tokens);
  const size_t x_width = static_cast<size_t>(hidden_) * size_of(compute_);
  auto* out = reinterpret_cast<float*>(mlp.gate_up_out.data());
  const int64_t most = rows_of_call(rows, 2 * mlp.inner);
  for (int64_t begin = 0; begin < rows; begin += most) {
    throw_if_stopped(stop_);
    mlp.gate_up->run(std::min(most, rows - begin), mlp.x.data() + static_cast<size_t>(begin) * x_width,
                     out + begin * 2 * mlp.inner);
  }
}

void LayerBaseline::multiply_down(const Mlp& mlp) const {
  const auto rows = std::ssize(mlp.tokens);
  const size_t act_width = static_cast<size_t>(mlp.inner) * size_of(compute_);
  auto* out = reinterpret_cast<float*>(mlp.out.data());
  const int64_t most = rows_of_call(rows, mlp.inner);
  for (int64_t begin = 0; begin < rows; begin += most) {
    throw_if_stopped(stop_);
    mlp.down->run(std::min(most, rows - begin), mlp.act.data() + static_cast<size_t>(begin) * act_width,
                  out + begin * hidden_);
  }
}

OutputCheck LayerBaseline::check(TensorView ours) const {
  EPS_CHECK_EQ(ours.numel(), num_outputs_);
  const float* values = ours.as<const float>();
  OutputCheck result;
  for (int64_t i = 0; i < ours.numel(); ++i) {
    if (i % hidden_ == 0) throw_if_stopped(stop_);
    const double want = outputs()[i];
    const double tolerance = tolerance_[static_cast<size_t>(i / hidden_)];
    const double off = std::abs(static_cast<double>(values[i]) - want) / tolerance;
    if (off <= result.worst) continue;  // false for NaN, which then stays the worst
    result = {off, i / hidden_, i % hidden_, static_cast<double>(values[i]), want, tolerance};
    if (std::isnan(off)) break;
  }
  return result;
}

std::string LayerBaseline::implementation() const {
  const auto experts = mlps_.end() - (shared_inner_ > 0 ? 1 : 0);
  const auto busiest = std::max_element(mlps_.begin(), experts,
                                        [](const Mlp& a, const Mlp& b) { return a.tokens.size() < b.tokens.size(); });
  const int64_t rows = rows_of_call(std::ssize(busiest->tokens), 2 * busiest->inner);
  return busiest->gate_up->implementation(std::max<int64_t>(1, rows));
}

}  // namespace eps::measure
