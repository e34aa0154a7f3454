// Latent attention by the reference op set, a thread a head, and how far rounding on the way may move it.
#pragma once

#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "ops/reference/reference_ops.h"
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
  MlaParams params;
  std::vector<float> kv_b;  // [num_heads * (nope_dim + v_dim), kv_lora_rank]
  std::vector<float> q;     // [T, num_heads * q_dim]
  std::vector<AttentionSequence> sequences;

  int64_t num_tokens() const {
    int64_t total = 0;
    for (const AttentionSequence& s : sequences) total += s.q_count;
    return total;
  }
};

// Scores of deviation 1 and values of deviation 1, so that no few positions decide and none is lost.
inline AttentionInputs random_attention(RandomValues& random, const MlaParams& p,
                                        const std::vector<std::pair<int64_t, int64_t>>& count_and_context) {
  AttentionInputs out;
  out.params = p;
  out.params.softmax_scale = static_cast<float>(1.0 / std::sqrt(p.q_dim()));
  out.kv_b = random.normal(int64_t{p.num_heads} * (p.nope_dim + p.v_dim) * p.kv_lora_rank,
                           1.0 / std::sqrt(p.kv_lora_rank), DType::kBF16);
  for (const auto& [count, context] : count_and_context) {
    out.sequences.push_back({count, context, random.normal(context * p.kv_lora_rank, 1.0, DType::kBF16),
                             random.normal(context * p.rope_dim, 1.0, DType::kBF16)});
  }
  out.q = random.normal(out.num_tokens() * p.num_heads * p.q_dim(), 1.0, DType::kBF16);
  return out;
}

// [T, num_heads * v_dim]
inline std::vector<float> attend(const AttentionInputs& in) {
  const MlaParams& p = in.params;
  const int64_t tokens = in.num_tokens();
  const int64_t head_rows = p.nope_dim + p.v_dim;
  std::vector<float> out(static_cast<size_t>(tokens * p.num_heads * p.v_dim));
  MlaParams one_head = p;
  one_head.num_heads = 1;
  std::vector<StepSequence> sequences;
  int64_t begin = 0;
  for (const AttentionSequence& s : in.sequences) {
    // The reference reads its cache only.
    sequences.push_back({begin, s.q_count, s.context, s.context, const_cast<float*>(s.latent.data()),
                         const_cast<float*>(s.k_pe.data())});
    begin += s.q_count;
  }
  const auto run_head = [&](int64_t head) {
    const auto ops = make_reference_ops();
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

// A backward error bound. Whatever the kernel (expanded or absorbed), it rounds to bf16 on the way: the query in latent
// space or the keys, the probabilities, the values or the summed latents. Each is as if a factor of the oracle's sums
// were off by as much, so: how far does noise of one rounding in every input (q, caches, weights) move the oracle? The
// root mean square of a head's output tells, and the bound is eight of it, then the rounding of the result. Inputs move
// by up to a full u here, roundings by 0.7 u on average.
inline std::vector<double> attention_tolerance(const AttentionInputs& in, const std::vector<float>& exact,
                                               RandomValues& random) {
  AttentionInputs noisy = in;
  const auto disturb = [&random](std::vector<float>& values) {
    const double u = unit_roundoff(DType::kBF16);
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
  const auto moved = attend(noisy);
  const auto v_dim = static_cast<size_t>(in.params.v_dim);
  std::vector<double> out(exact.size());
  for (size_t begin = 0; begin < exact.size(); begin += v_dim) {
    double square_sum = 0;
    for (size_t i = begin; i < begin + v_dim; ++i) {
      const double d = static_cast<double>(moved[i]) - exact[i];
      square_sum += d * d;
    }
    const double error = 8.0 * std::sqrt(square_sum / static_cast<double>(v_dim));
    for (size_t i = begin; i < begin + v_dim; ++i) {
      out[i] = error + (std::abs(exact[i]) + error) * unit_roundoff(DType::kBF16);
    }
  }
  return out;
}

}  // namespace eps::test
