// The gate: which experts a token takes, and with which weights.
#include <cmath>

#include "ops/cases/op_cases.h"
#include "support/host_views.h"
#include "support/tolerance.h"

namespace eps::ops {

using namespace test;  // values, tensors and tolerances
namespace {

// Logits of which no two are nearer than 2^-10 unless they are equal, so that rounding cannot change an order.
std::vector<float> random_logits(RandomValues& random, int64_t count, double scale) {
  auto out = random.normal(count, scale);
  for (float& v : out) v = std::round(v * 1024.0F) / 1024.0F;
  return out;
}

void check_gate(OpCaseRun& run, const ops::GateParams& p, int64_t tokens, const std::vector<float>& logits,
                const std::vector<float>& correction = {}) {
  const Shape shape{tokens, p.top_k};
  const auto count = static_cast<size_t>(shape.numel());
  const auto rows = run.on_ops(DType::kF32, {tokens, p.num_experts}, logits);
  const auto idx = run.poisoned(DType::kI32, shape);
  const auto weight = run.poisoned(DType::kF32, shape);
  const Shape bias_shape{std::ssize(correction)};
  const auto bias = run.on_ops(DType::kF32, bias_shape, correction);
  std::vector<int32_t> want_idx(count);
  std::vector<float> want(count);
  run.ops().gate(p, rows.view(), bias.view(), idx.view(), weight.view());
  run.oracle().gate(p, host(logits, {tokens, p.num_experts}), host(correction, bias_shape),
                    {want_idx.data(), DType::kI32, shape}, host(want, shape));
  EXPECT_EQ(idx.ints(), want_idx);
  // A softmax in f32: differences of logits round once, which moves exp by as much as they are large; exp is off by
  // 2 ulp and its slope, the sum of E positive terms by its bound; normalising does as much again.
  const double range = 2 * largest(logits);
  const double exp_error = (8 + (1 + run.accuracy().exp_slope) * range) * 0x1p-24;
  const double relative = 2 * (dot_tolerance(p.num_experts, 1.0) + exp_error);
  run.expect_close(
      weight.values(), want, [&](size_t i) { return want[i] * relative; }, "weights");
}

Operation gate_greedy() {
  Operation out{"gate", {}};
  for (const int experts : {1, 8, 9, 16, 24, 60, 64, 128, 160, 256}) {
    for (const int top_k : {1, 2, 4, 6, 8}) {
      if (top_k > experts) continue;
      for (const bool normalize : {false, true}) {
        const ops::GateParams p{experts, top_k, ops::TopkMethod::kGreedy, 1, 1, normalize, 2.5F};
        for (const int64_t tokens : {0, 1, 3, 33, 500}) {
          const auto body = [p, tokens](OpCaseRun& run) {
            check_gate(run, p, tokens, random_logits(run.random(), tokens * p.num_experts, 3.0));
          };
          out.cases.push_back(
              {fmt::format("{} of {}{}, {} tokens", top_k, experts, normalize ? ", normalised" : "", tokens),
               CaseSize{tokens, 0}, body});
        }
      }
    }
  }
  return out;
}

Operation gate_groups() {
  Operation out{"gate_groups", {}};
  struct Groups {
    int experts, top_k, num_groups, topk_group;
  };
  // The last ones: fewer experts in the groups than are wanted (the rest scores 0 and goes by index); all groups.
  for (const Groups& g : {Groups{8, 2, 4, 2}, Groups{24, 4, 4, 2}, Groups{32, 4, 4, 2}, Groups{160, 6, 8, 3},
                          Groups{256, 8, 8, 4}, Groups{8, 4, 4, 1}, Groups{64, 6, 8, 8}}) {
    for (const bool normalize : {false, true}) {
      const ops::GateParams p{g.experts, g.top_k, ops::TopkMethod::kGroupLimitedGreedy, g.num_groups, g.topk_group,
                              normalize, 16.0F};
      for (const int64_t tokens : {0, 1, 33, 500}) {
        const auto body = [p, tokens](OpCaseRun& run) {
          check_gate(run, p, tokens, random_logits(run.random(), tokens * p.num_experts, 2.0));
        };
        out.cases.push_back({fmt::format("{} of {} in {} of {} groups{}, {} tokens", g.top_k, g.experts, g.topk_group,
                                         g.num_groups, normalize ? ", normalised" : "", tokens),
                             CaseSize{tokens, 0}, body});
      }
    }
  }
  return out;
}

Operation gate_ties() {
  Operation out{"gate_ties", {}};
  for (const auto& [experts, groups] :
       std::vector<std::pair<int, int>>{{8, 1}, {24, 4}, {64, 1}, {64, 8}, {160, 8}, {256, 1}}) {
    const ops::TopkMethod method = groups > 1 ? ops::TopkMethod::kGroupLimitedGreedy : ops::TopkMethod::kGreedy;
    const ops::GateParams p{experts, 6, method, groups, std::max(1, groups / 2), false, 1.0F};
    const auto body = [p](OpCaseRun& run) {
      constexpr int64_t kTokens = 300;
      auto logits = run.random().normal(kTokens * p.num_experts, 1.0);
      for (float& v : logits) v = std::round(2 * v) / 2;  // a handful of values
      std::fill_n(logits.begin(), p.num_experts, 0.5F);   // and one token for which all are the same
      check_gate(run, p, kTokens, logits);
      std::vector<int32_t> idx(static_cast<size_t>(p.top_k));
      const auto got = run.poisoned(DType::kI32, {1, p.top_k});
      const auto weight = run.poisoned(DType::kF32, {1, p.top_k});
      const auto equal =
          run.on_ops(DType::kF32, {1, p.num_experts}, std::vector<float>(static_cast<size_t>(p.num_experts), 0.5F));
      run.ops().gate(p, equal.view(), {}, got.view(), weight.view());
      for (size_t i = 0; i < idx.size(); ++i) idx[i] = static_cast<int32_t>(i);
      EXPECT_EQ(got.ints(), idx) << "all experts are equal: the lowest indices win";
    };
    out.cases.push_back({fmt::format("{} experts in {} groups", experts, groups), kSmallCase, body});
  }
  return out;
}

// Sigmoids that are multiples of 1/(E + 1), and corrections that move them by whole multiples and a part of one that
// differs between experts, so that no two experts and no two groups come nearer than 0.5/E of a multiple.
Operation gate_sigmoid() {
  Operation out{"gate_sigmoid", {}};
  struct Case {
    int experts, top_k, num_groups, topk_group;
    bool normalize;
  };
  for (const Case& c :
       {Case{8, 2, 1, 1, true}, Case{9, 9, 1, 1, false}, Case{16, 1, 4, 1, true}, Case{64, 6, 8, 3, true},
        Case{256, 8, 8, 4, true}, Case{256, 8, 8, 8, false}, Case{384, 8, 1, 1, true}}) {
    for (const bool correction : {false, true}) {
      if (!correction && c.num_groups > 1) continue;  // no model has groups without a correction
      ops::GateParams p{c.experts, c.top_k, ops::TopkMethod::kGreedy, c.num_groups, c.topk_group, c.normalize, 2.5F};
      if (c.num_groups > 1) p.method = ops::TopkMethod::kGroupLimitedTop2;
      p.score = ops::RouterScore::kSigmoid;
      p.correction = correction;
      for (const int64_t tokens : {0, 1, 33, 300}) {
        const auto body = [p, tokens](OpCaseRun& run) {
          std::vector<float> logits;
          std::vector<float> bias;
          for (int64_t i = 0; i < tokens * p.num_experts; ++i) {
            // Distinct within a token: the index in a permutation that begins at another place for each token.
            const int64_t token = i / p.num_experts;
            const auto score = static_cast<double>((i % p.num_experts * 5 + token * 7) % p.num_experts + 1);
            const double sigmoid = score / (p.num_experts + 1.0);
            logits.push_back(static_cast<float>(std::log(sigmoid / (1 - sigmoid))));
          }
          for (int e = 0; p.correction && e < p.num_experts; ++e) {
            const auto steps = static_cast<double>(run.random().draw(-40, 40));
            bias.push_back(static_cast<float>((steps + 0.5 * e / p.num_experts) / (p.num_experts + 1.0)));
          }
          check_gate(run, p, tokens, logits, bias);
        };
        out.cases.push_back(
            {fmt::format("{} of {} in {} of {} groups{}{}, {} tokens", c.top_k, c.experts, c.topk_group, c.num_groups,
                         correction ? ", corrected" : "", c.normalize ? ", normalised" : "", tokens),
             CaseSize{tokens, 0}, body});
      }
    }
  }
  return out;
}

// The shift of large logits loses bits of their differences that no oracle agrees on, so only what must hold is
// checked.
Operation gate_large_logits() {
  const auto body = [](OpCaseRun& run) {
    const ops::GateParams p{64, 6, ops::TopkMethod::kGreedy, 1, 1, false, 1.0F};
    auto logits = run.random().normal(20 * 64, 1.0);
    for (size_t i = 0; i < logits.size(); ++i) logits[i] += i / 64 % 2 == 0 ? 30'000.0F : -30'000.0F;
    const auto rows = run.on_ops(DType::kF32, {20, 64}, logits);
    const auto idx = run.poisoned(DType::kI32, {20, 6});
    const auto weight = run.poisoned(DType::kF32, {20, 6});
    run.ops().gate(p, rows.view(), {}, idx.view(), weight.view());
    for (const float w : weight.values()) EXPECT_TRUE(w > 0 && w <= 1) << w;
    for (const int32_t e : idx.ints()) EXPECT_TRUE(e >= 0 && e < 64) << e;
  };
  return {"gate_large_logits", {{"of 30 000 and -30 000", kSmallCase, body}}};
}

}  // namespace

std::vector<Operation> gate_operations() {
  return {gate_greedy(), gate_groups(), gate_ties(), gate_sigmoid(), gate_large_logits()};
}

}  // namespace eps::ops
