#include "measure/op_timing.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/thread_pool.h"
#include "measure/fill.h"
#include "measure/fit.h"

namespace eps::measure {
namespace {

constexpr uint64_t kSeed = 1;  // times do not depend on the values

using Points = std::map<std::string, plan::Curve>;

std::vector<int64_t> row_counts(const ops::OpSet& ops, const TuneOptions& options) {
  // Up to the rows of a large prefill, because rows that fit in a GPU's cache are faster than those of a layer.
  if (ops.device() != nullptr) return {64, 1024, options.quick ? 4096 : 16384};
  // From a decoded token to a prefill, whose rows exceed the caches in large models and fit into them in small ones.
  std::vector<int64_t> out;
  for (int64_t rows = 1; rows <= options.max_rows; rows *= options.quick ? 8 : 4) out.push_back(rows);
  return out;
}

// The numbers below `count` in a scattered order, similar to that in which experts access tokens.
std::vector<int64_t> scattered(int64_t count) {
  int64_t stride = count / 2 + 1;
  while (std::gcd(stride, count) != 1) ++stride;
  std::vector<int64_t> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(i * stride % count);
  return out;
}

// The same values again and again on a host, because random numbers for all rows would take longer than the
// measurements.
void fill_rows(const ops::OpSet& ops, MutableTensorView rows) {
  constexpr int64_t kDifferent = 64;
  if (!ops.memory().on_host() || rows.dim(0) <= kDifferent) return fill_normal(ops, rows, kSeed);
  fill_normal(ops, rows.rows(0, kDifferent), kSeed);
  const size_t bytes = rows.rows(0, kDifferent).num_bytes();
  auto* data = static_cast<std::byte*>(rows.data());
  for (size_t at = bytes; at < rows.num_bytes(); at += bytes) {
    std::memcpy(data + at, data, std::min(bytes, rows.num_bytes() - at));
  }
}

// Times elementwise ops on rows of one width.
class OpBench {
 public:
  OpBench(ops::OpSet& ops, int64_t rows, const RowWidths& widths, int num_ranks)
      : ops_(ops), rows_(rows), widths_(widths) {
    for (Buffer& memory : memory_) memory = Buffer(ops.memory());
    const DType compute = ops.compute_dtype();
    const Shape hidden{rows, widths.hidden};
    for (size_t i = 0; i < f32_.size(); ++i) fill_rows(ops, f32_[i] = memory_[i].view(DType::kF32, hidden));
    fill_rows(ops, compute_ = memory_[4].view(compute, hidden));
    gathered_ = memory_[5].view(compute, hidden);
    fill_rows(ops, gate_up_ = memory_[6].view(ops.activation_dtype(), {rows, 2 * widths.inner}));
    act_ = memory_[7].view(compute, {rows, widths.inner});
    fill_normal(ops, norm_weight_ = memory_[8].view(DType::kF32, {widths.hidden}), kSeed);
    ones_.assign(static_cast<size_t>(rows), 1.0F);
    const std::vector<int64_t> order = scattered(rows);
    const size_t row_bytes = compute_.num_bytes() / static_cast<size_t>(rows);
    for (const int64_t i : order) {
      sources_.push_back(static_cast<const std::byte*>(compute_.data()) + static_cast<size_t>(i) * row_bytes);
      sums_.push_back(reinterpret_cast<const std::byte*>(row(0, i)));
    }
    // The experts of a token are on average as many on every rank. Their rows are not next to each other.
    const int64_t of_token = std::max<int64_t>(1, widths.top_k / num_ranks);
    for (int64_t i = 0; i < rows; ++i) {
      if (i % of_token == 0) continue;
      adds_.push_back({row(0, order[static_cast<size_t>(i - i % of_token)]), row(0, order[static_cast<size_t>(i)])});
    }
    // Other ranks return a partial sum for most tokens.
    for (int64_t i = 0; num_ranks > 1 && i < rows; ++i) partials_.push_back({row(0, i), row(1, i)});
  }

  void measure(RepeatedTiming& timing, Points& points) {
    const double e = static_cast<double>(size_of(ops_.compute_dtype()));
    const double hidden = static_cast<double>(rows_ * widths_.hidden) * e;
    const double inner = static_cast<double>(rows_ * widths_.inner) * e;
    const auto time = [&](const char* name, double bytes, const std::function<void()>& body) {
      points[name].push_back({bytes, timing.time_us(body)});
    };
    time("gather", 2 * hidden, [&] { ops_.gather_rows(sources_, gathered_); });
    time("silu_mul", 3 * inner, [&] { ops_.silu_mul(gate_up_, act_); });
    time("norm", 2 * hidden, [&] { ops_.rms_norm(f32_[1], norm_weight_, 1e-6F, f32_[2]); });
    time("other", 3 * hidden, [&] { ops_.add(f32_[2], f32_[3]); });
    // A device does not add rows by lists made on the host, so these ops are not measured (see measure_ops).
    if (ops_.device() != nullptr) return;
    time("reduce", 3 * hidden, [&] {
      ops_.scale_rows(f32_[0], ones_);
      ops_.add_rows(adds_, widths_.hidden);
    });
    time("finish", 3 * hidden, [&] {
      if (!partials_.empty()) ops_.add_rows(partials_, widths_.hidden);
      ops_.gather_rows(sums_, f32_[2]);
      ops_.add(f32_[2], f32_[3]);
    });
    time("pack", 2 * hidden, [&] { pack(); });
  }

 private:
  float* row(size_t buffer, int64_t i) { return f32_[buffer].as<float>() + i * widths_.hidden; }

  // The copies of a communication lane before it sends, which do not use the threads of the op set.
  void pack() {
    const size_t row_bytes = gathered_.num_bytes() / static_cast<size_t>(rows_);
    auto* out = static_cast<std::byte*>(gathered_.data());
    for (const std::byte* source : sources_) {
      std::memcpy(out, source, row_bytes);
      out += row_bytes;
    }
  }

  ops::OpSet& ops_;
  int64_t rows_;
  RowWidths widths_;
  std::array<Buffer, 9> memory_;
  std::array<MutableTensorView, 4> f32_;
  MutableTensorView compute_, gathered_, gate_up_, act_, norm_weight_;
  std::vector<float> ones_;
  std::vector<const std::byte*> sources_, sums_;
  std::vector<ops::RowPair> adds_, partials_;
};

// Times latent attention of one sequence over all its positions.
class AttentionBench {
 public:
  AttentionBench(ops::OpSet& ops, const ops::MlaParams& params, int64_t tokens) : ops_(ops), params_(params) {
    for (Buffer& memory : memory_) memory = Buffer(ops.memory());
    Buffer kv_b_memory;
    const MutableTensorView kv_b = kv_b_memory.view(
        DType::kBF16, {int64_t{params.num_heads} * (params.nope_dim + params.v_dim), params.kv_lora_rank});
    fill_normal(kv_b, kSeed);
    weight_ = ops.pack_mla(kv_b, params);
    const DType act = ops.activation_dtype();
    fill_normal(ops, q_ = memory_[0].view(act, {tokens, int64_t{params.num_heads} * params.q_dim()}), kSeed);
    const MutableTensorView latent = memory_[1].view(act, {tokens, params.kv_lora_rank});
    const MutableTensorView k_pe = memory_[2].view(act, {tokens, params.rope_dim});
    fill_normal(ops, latent, kSeed);
    fill_normal(ops, k_pe, kSeed);
    out_ = memory_[3].view(act, {tokens, int64_t{params.num_heads} * params.v_dim});
    sequence_ = {0, tokens, tokens, tokens, latent.data(), k_pe.data()};
    ops.begin_step({{}, {}, std::span(&sequence_, 1)});
  }

  void run() { ops_.mla_attention(params_, *weight_, q_, 0, out_); }

 private:
  ops::OpSet& ops_;
  ops::MlaParams params_;
  std::array<Buffer, 4> memory_;
  std::unique_ptr<ops::MlaWeight> weight_;
  MutableTensorView q_, out_;
  ops::StepSequence sequence_;
};

}  // namespace

std::map<std::string, plan::OpCost> measure_ops(ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options) {
  Points points;
  for (const RowWidths& widths : options.widths) {
    for (const int64_t rows : row_counts(ops, options)) {
      OpBench(ops, rows, widths, timing.comm().size()).measure(timing, points);
    }
  }
  std::map<std::string, plan::OpCost> out;
  for (auto& [name, curve] : points) {
    out[name] = ops.device() != nullptr ? fit_cost(curve) : plan::OpCost{0, 0, curve_through(std::move(curve))};
  }
  if (ops.device() != nullptr) {
    // These run only within whole layers there. Like a sum of rows they are bound by memory.
    out["reduce"] = out["finish"] = out["other"];
    out["pack"] = out["gather"];
  }
  return out;
}

double measure_attention_tflops(ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options) {
  // Long enough for the quadratic part to matter: on a device, the time of short prompts is that of the kernel
  // launches.
  const int64_t most = ops.device() != nullptr ? (options.quick ? 4096 : 8192) : options.quick ? 256 : 1024;
  const int64_t longest = std::min(options.max_rows, most);
  const auto time = [&](int64_t tokens) {
    AttentionBench bench(ops, options.attention, tokens);
    return timing.time_us([&] { bench.run(); });
  };
  const auto shorter = static_cast<double>(std::max<int64_t>(1, longest / 2));
  const auto longer = static_cast<double>(longest);
  const double a = time(std::max<int64_t>(1, longest / 2));
  const double b = time(longest);
  // us = linear · tokens + square · tokens²; the linear part, which expands latents, is a GEMM and counted as such.
  double square = longer > shorter ? (b / longer - a / shorter) / (longer - shorter) : 0;
  if (!(square > 0)) square = b / (longer * longer);
  // A query attends to half of the keys on average, with one product with the key and one with the value for each.
  const ops::MlaParams& p = options.attention;
  const double flops = static_cast<double>(p.num_heads) * (p.q_dim() + p.v_dim);
  return flops / square * 1e-6;
}

double measure_memory_gbps(const ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options) {
  if (ops.device() != nullptr) {
    // Copies of a quarter of a gigabyte, each byte read and written.
    constexpr int64_t kBytes = int64_t{1} << 28;
    Buffer from(ops.memory());
    Buffer to(ops.memory());
    const MutableTensorView source = from.view(DType::kU8, {kBytes});
    const MutableTensorView target = to.view(DType::kU8, {kBytes});
    return 2 * static_cast<double>(kBytes) * 1e-3 / timing.time_us([&] { ops.copy(source, target); });
  }
  const int64_t bytes = options.quick ? int64_t{64} << 20 : int64_t{192} << 20;
  constexpr int64_t kPieceWords = 1 << 17;  // 1 MB
  const int64_t words = bytes / 8;
  std::vector<uint64_t> memory(static_cast<size_t>(words), 1);
  ThreadPool pool(options.threads);
  std::atomic<uint64_t> sum{0};  // used afterwards, so that the compiler cannot remove the reads
  const double us = timing.time_us([&] {
    pool.parallel_for(words / kPieceWords, [&](int64_t piece) {
      const uint64_t* begin = memory.data() + piece * kPieceWords;
      sum += std::accumulate(begin, begin + kPieceWords, uint64_t{0});
    });
  });
  EPS_CHECK_EQ(sum % static_cast<uint64_t>(words), 0U);
  return static_cast<double>(bytes) * 1e-3 / us;
}

}  // namespace eps::measure
