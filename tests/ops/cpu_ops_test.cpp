// Every op of the CPU op set against the reference, over edge shapes.
#include "ops/cpu/cpu_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <tuple>

#include "ops/reference/reference_ops.h"
#include "support/tolerance.h"

namespace eps {
namespace {

class Random {
 public:
  explicit Random(uint32_t seed) : rng_(seed) {}
  std::vector<float> normal(int64_t n, float scale = 1.0F) {
    std::normal_distribution<float> dist(0.0F, scale);
    std::vector<float> out(static_cast<size_t>(n));
    for (float& v : out) v = dist(rng_);
    return out;
  }
  int draw(int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng_); }

 private:
  std::mt19937 rng_;
};

TensorView view(const std::vector<float>& v, const Shape& shape) { return {v.data(), DType::kF32, shape}; }
MutableTensorView view(std::vector<float>& v, const Shape& shape) { return {v.data(), DType::kF32, shape}; }

// Poisoned, so an unwritten element shows.
std::vector<float> poisoned(int64_t n) { return std::vector<float>(static_cast<size_t>(n), std::nanf("")); }

double largest(const std::vector<float>& v) {
  double top = 0;
  for (const float x : v) top = std::max(top, std::abs(static_cast<double>(x)));
  return top;
}

void expect_close(const std::vector<float>& got, const std::vector<float>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << "at " << i;
}

// Every instruction set that this CPU has, with one thread and with two.
class CpuOpsTest : public ::testing::TestWithParam<std::tuple<CpuIsa, int>> {
 protected:
  void SetUp() override {
    const auto [isa, threads] = GetParam();
    if (isa > cpu_features().isa()) GTEST_SKIP() << "this CPU has " << to_string(cpu_features().isa());
    cpu_ = make_cpu_ops(choose_cpu_engine(DType::kF32, cap_isa(cpu_features(), isa)), threads);
  }
  std::unique_ptr<OpSet> cpu_;
  std::unique_ptr<OpSet> reference_ = make_reference_ops();
  Random random_{17};
};
INSTANTIATE_TEST_SUITE_P(Isas, CpuOpsTest,
                         ::testing::Combine(::testing::Values(CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512),
                                            ::testing::Values(1, 2)),
                         [](const auto& test) {
                           return fmt::format("{}_{}threads", to_string(std::get<0>(test.param)),
                                              std::get<1>(test.param));
                         });

TEST_P(CpuOpsTest, RmsNorm) {
  for (const int64_t width : {1, 7, 8, 15, 16, 33, 256}) {
    for (const int64_t rows : {0, 1, 3, 300}) {
      const auto x = random_.normal(rows * width, 3.0F);
      const auto w = random_.normal(width);
      auto got = poisoned(rows * width);
      auto want = poisoned(rows * width);
      cpu_->rms_norm(view(x, {rows, width}), view(w, {width}), 1e-6F, view(got, {rows, width}));
      reference_->rms_norm(view(x, {rows, width}), view(w, {width}), 1e-6F, view(want, {rows, width}));
      // The mean of squares is a sum of positive terms, so its relative error is the bound itself.
      expect_close(got, want, largest(want) * (test::dot_tolerance(width, 1.0) + 4 * 0x1p-24));
    }
  }
}

TEST_P(CpuOpsTest, SiluMul) {
  for (const int64_t width : {1, 8, 13, 64, 500}) {
    for (const int64_t rows : {0, 1, 70}) {
      auto gate_up = random_.normal(rows * 2 * width, 4.0F);
      if (rows > 0) gate_up[0] = -200.0F;  // exp overflows f32
      if (rows > 1) gate_up[static_cast<size_t>(2 * width)] = 200.0F;
      auto got = poisoned(rows * width);
      auto want = poisoned(rows * width);
      cpu_->silu_mul(view(gate_up, {rows, 2 * width}), view(got, {rows, width}));
      reference_->silu_mul(view(gate_up, {rows, 2 * width}), view(want, {rows, width}));
      for (size_t i = 0; i < got.size(); ++i) {
        // exp is 2 ulp, the division and products add one each
        ASSERT_NEAR(got[i], want[i], std::abs(want[i]) * 8 * 0x1p-24 + 1e-30) << i;
      }
    }
  }
}

TEST_P(CpuOpsTest, ElementwiseAndRows) {
  for (const int64_t width : {1, 9, 64, 129, 1000}) {
    const int64_t rows = 40;
    const auto x = random_.normal(rows * width);
    const auto bias = random_.normal(width);
    auto got = random_.normal(rows * width);
    auto want = got;
    cpu_->add(view(got, {rows, width}), view(x, {rows, width}));
    reference_->add(view(want, {rows, width}), view(x, {rows, width}));
    cpu_->add_bias(view(got, {rows, width}), view(bias, {width}));
    reference_->add_bias(view(want, {rows, width}), view(bias, {width}));
    const auto weight = random_.normal(rows);
    cpu_->scale_rows(view(got, {rows, width}), weight);
    reference_->scale_rows(view(want, {rows, width}), weight);
    EXPECT_EQ(got, want);  // one rounding each: the same bits
    // A chain: row 0 takes rows 1..39 in order, so the order shows in the bits.
    const auto chain = [&](std::vector<float>& v) {
      std::vector<RowPair> pairs;
      for (int64_t r = 1; r < rows; ++r) pairs.push_back({v.data(), v.data() + r * width});
      return pairs;
    };
    cpu_->add_rows(chain(got), width);
    reference_->add_rows(chain(want), width);
    EXPECT_EQ(got, want);
  }
}

TEST_P(CpuOpsTest, EmbedReadsEveryStoredType) {
  const int64_t width = 24;
  const auto values = random_.normal(10 * width);
  std::vector<bf16> narrow;
  std::vector<f16> half;
  for (const float v : values) {
    narrow.push_back(to_bf16(v));
    half.push_back(to_f16(v));
  }
  const std::vector<int32_t> ids = {9, 0, 0, 3};
  for (const TensorView& table : {view(values, {10, width}), TensorView(narrow.data(), DType::kBF16, {10, width}),
                                  TensorView(half.data(), DType::kF16, {10, width})}) {
    auto got = poisoned(4 * width);
    auto want = poisoned(4 * width);
    cpu_->begin_step({ids, {}, {}});
    reference_->begin_step({ids, {}, {}});
    cpu_->embed(table, view(got, {4, width}));
    reference_->embed(table, view(want, {4, width}));
    EXPECT_EQ(got, want);
  }
}

TEST_P(CpuOpsTest, LinearTasksOfManyShapes) {
  std::vector<std::vector<float>> keep;
  std::vector<std::unique_ptr<LinearWeight>> weights;
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{0, 8, 8}, {1, 17, 33}, {5, 64, 64}, {31, 100, 7}}) {
    const auto w = random_.normal(n * k);
    const auto x = random_.normal(m * k);
    const TensorView part = view(w, {n, k});
    const auto fast = cpu_->pack_linear(std::span(&part, 1), Precision::kCompute);
    const auto slow = reference_->pack_linear(std::span(&part, 1), Precision::kCompute);
    auto got = poisoned(m * n);
    auto want = poisoned(m * n);
    const LinearTask fast_task{fast.get(), view(x, {m, k}), view(got, {m, n})};
    const LinearTask slow_task{slow.get(), view(x, {m, k}), view(want, {m, n})};
    cpu_->linear(std::span(&fast_task, 1));
    reference_->linear(std::span(&slow_task, 1));
    expect_close(got, want, test::dot_tolerance(k, largest(x) * largest(w) * static_cast<double>(k)));
  }
}

TEST_P(CpuOpsTest, Rope) {
  const auto cos = random_.normal(20 * 4);
  const auto sin = random_.normal(20 * 4);
  const RopeView table{8, view(cos, {20, 4}), view(sin, {20, 4})};
  const std::vector<int32_t> positions = {0, 19, 7};
  cpu_->begin_step({{}, positions, {}});
  reference_->begin_step({{}, positions, {}});
  auto got = random_.normal(3 * 2 * 12);
  auto want = got;
  cpu_->rope(view(got, {3, 24}), 12, table);
  reference_->rope(view(want, {3, 24}), 12, table);
  expect_close(got, want, largest(want) * 4 * 0x1p-24);
}

TEST_P(CpuOpsTest, GateAgreesWithTheReferenceIncludingTies) {
  for (const bool normalize : {false, true}) {
    for (const TopkMethod method : {TopkMethod::kGreedy, TopkMethod::kGroupLimitedGreedy}) {
      const GateParams params{24, 4, method, 4, 2, normalize, 1.5F};
      const int64_t tokens = 200;
      auto logits = random_.normal(tokens * 24, 2.0F);
      std::fill(logits.begin(), logits.begin() + 24, 0.5F);  // all tie: the lowest indices win
      std::vector<int32_t> got_idx(static_cast<size_t>(tokens * 4), -1);
      std::vector<int32_t> want_idx(got_idx);
      auto got = poisoned(tokens * 4);
      auto want = poisoned(tokens * 4);
      cpu_->gate(params, view(logits, {tokens, 24}), {got_idx.data(), DType::kI32, {tokens, 4}},
                 view(got, {tokens, 4}));
      reference_->gate(params, view(logits, {tokens, 24}), {want_idx.data(), DType::kI32, {tokens, 4}},
                       view(want, {tokens, 4}));
      EXPECT_EQ(got_idx, want_idx);
      EXPECT_EQ((std::vector<int32_t>(got_idx.begin(), got_idx.begin() + 4)), (std::vector<int32_t>{0, 1, 2, 3}));
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], want[i] * 40 * 0x1p-24);
    }
  }
}

TEST_P(CpuOpsTest, MlaExpandedAndAbsorbedMatchTheReference) {
  // kv_lora_rank decides which way is cheaper: both are taken over these shapes.
  for (const int lora : {4, 16, 96}) {
    for (const auto& [context, queries] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {40, 40}, {70, 3}, {90, 1}}) {
      const MlaParams p{3, 16, 8, 12, lora, 0.2F};
      const auto kv_b = random_.normal(p.num_heads * (p.nope_dim + p.v_dim) * lora, 0.3F);
      auto latent = random_.normal(context * lora);
      auto k_pe = random_.normal(context * p.rope_dim);
      const auto q = random_.normal((queries + 2) * p.num_heads * p.q_dim());
      const TensorView kv_view = view(kv_b, {int64_t{p.num_heads} * (p.nope_dim + p.v_dim), lora});
      // Two sequences: a one-token one, and the one under test.
      const std::vector<StepSequence> sequences = {{0, 1, 1, context, latent.data(), k_pe.data()},
                                                   {1, 0, context, context, latent.data(), k_pe.data()},
                                                   {2, queries, context, context, latent.data(), k_pe.data()}};
      cpu_->begin_step({{}, {}, sequences});
      reference_->begin_step({{}, {}, sequences});
      auto got = std::vector<float>(static_cast<size_t>((queries + 2) * p.num_heads * p.v_dim), 0.0F);
      auto want = got;
      const Shape out_shape{queries + 2, int64_t{p.num_heads} * p.v_dim};
      const Shape q_shape{queries + 2, int64_t{p.num_heads} * p.q_dim()};
      cpu_->mla_attention(p, *cpu_->pack_mla(kv_view, p), view(q, q_shape), 0, view(got, out_shape));
      reference_->mla_attention(p, *reference_->pack_mla(kv_view, p), view(q, q_shape), 0, view(want, out_shape));
      // Three chained sums (up-projection, scores, values). A score error δ moves probabilities by about δ.
      const double score_error = test::dot_tolerance(p.q_dim(), largest(q) * largest(latent) * p.q_dim() * 0.2);
      expect_close(got, want, largest(want) * (2 * score_error + test::dot_tolerance(context + lora, 1.0)));
    }
  }
}

}  // namespace
}  // namespace eps
