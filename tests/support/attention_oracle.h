// Latent attention by the oracle, a thread a head, and how far rounding on the way may move it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "ops/op_set.h"
#include "support/random_values.h"
#include "support/tolerance.h"

namespace eps::test {

// One sequence of a step. The last `q_count` positions are its new tokens.
struct AttentionSequence {
  int64_t q_count = 0;
  int64_t context = 0;
  std::vector<float> latent;  // [context, kv_lora_rank]
  std::vector<float> k_pe;    // [context, rope_dim]
};

struct AttentionInputs {
  ops::MlaParams params;
  std::vector<float> kv_b;  // [num_heads * (nope_dim + v_dim), kv_lora_rank]
  std::vector<float> q;     // [T, num_heads * q_dim]
  std::vector<AttentionSequence> sequences;

  int64_t num_tokens() const {
    int64_t total = 0;
    for (const AttentionSequence& s : sequences) total += s.q_count;
    return total;
  }
};

// Values that `dtype` holds. Scores of deviation 1 and values of deviation 1, so that no few positions decide and none
// is lost.
inline AttentionInputs random_attention(RandomValues& random, const ops::MlaParams& p,
                                        const std::vector<std::pair<int64_t, int64_t>>& count_and_context,
                                        DType dtype) {
  AttentionInputs out;
  out.params = p;
  out.params.softmax_scale = static_cast<float>(1.0 / std::sqrt(p.q_dim()));
  out.kv_b = random.normal(int64_t{p.num_heads} * (p.nope_dim + p.v_dim) * p.kv_lora_rank,
                           1.0 / std::sqrt(p.kv_lora_rank), dtype);
  for (const auto& [count, context] : count_and_context) {
    out.sequences.push_back({count, context, random.normal(context * p.kv_lora_rank, 1.0, dtype),
                             random.normal(context * p.rope_dim, 1.0, dtype)});
  }
  out.q = random.normal(out.num_tokens() * p.num_heads * p.q_dim(), 1.0, dtype);
  return out;
}

using MakeOps = std::function<std::unique_ptr<ops::OpSet>()>;

// [T, num_heads * v_dim]
inline std::vector<float> attend(const AttentionInputs& in, const MakeOps& make_oracle) {
  const ops::MlaParams& p = in.params;
  const int64_t tokens = in.num_tokens();
  const int64_t head_rows = p.nope_dim + p.v_dim;
  std::vector<float> out(static_cast<size_t>(tokens * p.num_heads * p.v_dim));
  ops::MlaParams one_head = p;
  one_head.num_heads = 1;
  std::vector<ops::StepSequence> sequences;
  int64_t begin = 0;
  for (const AttentionSequence& s : in.sequences) {
    // The reference reads its cache only.
    sequences.push_back({begin, s.q_count, s.context, s.context, const_cast<float*>(s.latent.data()),
                         const_cast<float*>(s.k_pe.data())});
    begin += s.q_count;
  }
  const auto run_head = [&](int64_t head) {
    const auto ops = make_oracle();
    const TensorView kv_b(in.kv_b.data() + head * head_rows * p.kv_lora_rank, DType::kF32, {head_rows, p.kv_lora_rank});
    std::vector<float> q(static_cast<size_t>(tokens * p.q_dim()));
    for (int64_t t = 0; t < tokens; ++t) {
      std::copy_n(in.q.begin() + (t * p.num_heads + head) * p.q_dim(), p.q_dim(), q.begin() + t * p.q_dim());
    }
    std::vector<float> y(static_cast<size_t>(tokens * p.v_dim));
    ops->begin_step({{}, {}, sequences});
    ops->mla_attention(one_head, *ops->pack_mla(kv_b, one_head), {q.data(), DType::kF32, {tokens, p.q_dim()}}, 0,
                       {y.data(), DType::kF32, {tokens, p.v_dim}});
    for (int64_t t = 0; t < tokens; ++t) {
      std::copy_n(y.begin() + t * p.v_dim, p.v_dim, out.begin() + (t * p.num_heads + head) * p.v_dim);
    }
  };
  std::atomic<int64_t> next = 0;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i) {
    threads.emplace_back([&] {
      for (int64_t head = next++; head < p.num_heads; head = next++) run_head(head);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return out;
}

// The noise that stands for the roundings of one sum. Where products are computed in bf16, what is rounded on the way
// is rounded once to that, and the errors of the sums in f32 are nothing beside it. In f32 each partial sum is rounded,
// at random, so a sum of n terms is off by about sqrt(n) roundings.
inline double attention_noise(const AttentionInputs& in, DType compute) {
  if (compute != DType::kF32) return unit_roundoff(compute);
  int64_t longest = std::max({in.params.kv_lora_rank, in.params.q_dim(), in.params.v_dim});
  for (const AttentionSequence& s : in.sequences) longest = std::max(longest, s.context);
  return unit_roundoff(compute) * std::sqrt(static_cast<double>(longest));
}

// A backward error bound. Whatever the kernel (expanded or absorbed), it rounds on the way: the query in latent space
// or the keys, the probabilities, the values or the summed latents. Each is as if a factor of the oracle's sums were
// off by as much, so: how far does noise of one rounding in every input (q, caches, weights) move the oracle? The root
// mean square of a head's output tells, and the bound is eight of it, then the rounding of the result to `stored`.
// Inputs move by up to a full u here, roundings by 0.7 u on average.
inline std::vector<double> attention_tolerance(const AttentionInputs& in, const std::vector<float>& exact,
                                               DType compute, DType stored, RandomValues& random,
                                               const MakeOps& make_oracle) {
  const double u = attention_noise(in, compute);
  AttentionInputs noisy = in;
  const auto disturb = [&random, u](std::vector<float>& values) {
    for (float& v : values) {
      const double noise = static_cast<double>(random.bits() >> 11) * 0x1p-52 - 1.0;  // uniform in [-1, 1)
      v = static_cast<float>(v * (1.0 + u * noise));
    }
  };
  disturb(noisy.q);
  disturb(noisy.kv_b);
  for (AttentionSequence& s : noisy.sequences) {
    disturb(s.latent);
    disturb(s.k_pe);
  }
  const auto moved = attend(noisy, make_oracle);
  const auto v_dim = static_cast<size_t>(in.params.v_dim);
  const size_t row = static_cast<size_t>(in.params.num_heads) * v_dim;
  const auto mean_square = [&](size_t begin, size_t count) {
    double sum = 0;
    for (size_t i = begin; i < begin + count; ++i) sum += std::pow(static_cast<double>(moved[i]) - exact[i], 2);
    return sum / static_cast<double>(count);
  };
  std::vector<double> out;
  for (size_t head = 0; head < exact.size(); head += v_dim) {
    // A narrow head alone has too few numbers to tell: no less than what all heads of the token say.
    const double error = 8.0 * std::sqrt(std::max(mean_square(head, v_dim), mean_square(head / row * row, row)));
    for (size_t i = head; i < head + v_dim; ++i) {
      out.push_back(error + (std::abs(exact[i]) + error) * unit_roundoff(stored));
    }
  }
  return out;
}

}  // namespace eps::test
