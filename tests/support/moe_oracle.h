// An MoE layer in double precision on the host, and how far rounding on the way may move its result.
#pragma once

#include <atomic>
#include <cmath>
#include <span>
#include <thread>
#include <vector>

#include "support/random_values.h"
#include "support/tolerance.h"

namespace eps::test {

struct MoeDims {
  int64_t hidden = 0;
  int64_t inner = 0;
  int64_t shared_inner = 0;  // 0: no shared experts
  int num_experts = 0;
  int top_k = 0;
};

// One expert, or the shared ones as one: gate rows, then up rows [2 * inner, hidden]; down [hidden, inner].
struct ExpertValues {
  std::vector<bf16> gate_up;
  std::vector<bf16> down;
};

struct MoeValues {
  MoeDims dims;
  std::vector<ExpertValues> experts;
  ExpertValues shared;
};

inline ExpertValues random_expert(RandomValues& random, int64_t hidden, int64_t inner) {
  const auto fill = [&random](int64_t n, double scale) {
    std::vector<bf16> out(static_cast<size_t>(n));
    for (bf16& v : out) v = to_bf16(static_cast<float>(random.normal() * scale));
    return out;
  };
  return {fill(2 * inner * hidden, 1.0 / std::sqrt(static_cast<double>(hidden))),
          fill(hidden * inner, 1.0 / std::sqrt(static_cast<double>(inner)))};
}

inline MoeValues random_moe(RandomValues& random, const MoeDims& dims) {
  MoeValues out{dims, {}, {}};
  for (int e = 0; e < dims.num_experts; ++e) out.experts.push_back(random_expert(random, dims.hidden, dims.inner));
  if (dims.shared_inner > 0) out.shared = random_expert(random, dims.hidden, dims.shared_inner);
  return out;
}

struct MoeRow {
  std::vector<double> value;   // [hidden]
  std::vector<double> square;  // [hidden] squares of the terms that rounding moves, summed
};

// out += weight · expert(x)
inline void add_expert(const ExpertValues& expert, int64_t inner, const float* x, double weight, MoeRow& out) {
  const auto hidden = std::ssize(out.value);
  std::vector<double> act(static_cast<size_t>(inner));
  const auto dot = [&](int64_t row) {
    const bf16* w = expert.gate_up.data() + row * hidden;
    double sum = 0;
    for (int64_t i = 0; i < hidden; ++i) sum += static_cast<double>(to_float(w[i])) * x[i];
    return sum;
  };
  for (int64_t i = 0; i < inner; ++i) {
    const double gate = dot(i);
    act[static_cast<size_t>(i)] = gate / (1.0 + std::exp(-gate)) * dot(inner + i);
  }
  for (int64_t h = 0; h < hidden; ++h) {
    const bf16* w = expert.down.data() + h * inner;
    double sum = 0;
    double square = 0;
    for (int64_t i = 0; i < inner; ++i) {
      const double term = act[static_cast<size_t>(i)] * static_cast<double>(to_float(w[i]));
      sum += term;
      square += term * term;
    }
    out.value[static_cast<size_t>(h)] += weight * sum;
    out.square[static_cast<size_t>(h)] += weight * weight * (square + sum * sum);
  }
}

// Rows of tokens `wanted`, which are shared between threads. x [T, hidden]; idx and weight [T, top_k].
inline std::vector<MoeRow> run_moe(const MoeValues& moe, std::span<const float> x, std::span<const int32_t> idx,
                                   std::span<const float> weight, std::span<const int64_t> wanted) {
  std::vector<MoeRow> out(wanted.size());
  const auto hidden = static_cast<size_t>(moe.dims.hidden);
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < wanted.size(); i = next++) {
      out[i] = {std::vector<double>(hidden), std::vector<double>(hidden)};
      const float* row = x.data() + wanted[i] * moe.dims.hidden;
      for (int k = 0; k < moe.dims.top_k; ++k) {
        const auto at = static_cast<size_t>(wanted[i] * moe.dims.top_k + k);
        add_expert(moe.experts[static_cast<size_t>(idx[at])], moe.dims.inner, row, weight[at], out[i]);
      }
      if (moe.dims.shared_inner > 0) add_expert(moe.shared, moe.dims.shared_inner, row, 1.0, out[i]);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return out;
}

// The kernels round gate and up, their product, and each expert's row to bf16: three roundings of each term of the down
// projection and one of its sum, whose squares `square` adds up. The f32 sums' own errors are 2^-16 of that and
// covered. Then the result is rounded.
inline double moe_tolerance(double exact, double square) {
  const double error = noise_tolerance(std::sqrt(square));
  return error + (std::abs(exact) + error) * unit_roundoff(DType::kBF16);
}

}  // namespace eps::test
