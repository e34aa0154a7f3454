// The MoE layer that runs on the GPU alone against a double-precision one on the host.
#include "ops/local_moe.h"

#include <numeric>

#include "ops/moe_weights.h"
#include "support/gpu_test.h"
#include "support/moe_oracle.h"

namespace eps::ops {
namespace {

using test::host;
using test::MoeDims;

struct Routed {
  std::vector<int32_t> idx;
  std::vector<float> weight;
};

// Different experts for a token, some drawn more often than others; `first`: the same for all tokens, in their order.
Routed random_routing(test::RandomValues& random, const MoeDims& d, int64_t tokens, bool all_the_same) {
  Routed out;
  std::vector<int32_t> experts(static_cast<size_t>(d.num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int k = 0; k < d.top_k && !all_the_same; ++k) {
      const int64_t reach = random.draw(0, 1) == 0 ? d.num_experts - 1 : std::max<int64_t>(k, d.num_experts / 4);
      std::swap(experts[static_cast<size_t>(k)],
                experts[static_cast<size_t>(random.draw(k, std::max<int64_t>(k, reach)))]);
    }
    for (int k = 0; k < d.top_k; ++k) {
      out.idx.push_back(experts[static_cast<size_t>(k)]);
      out.weight.push_back(static_cast<float>(random.draw(1, 1000)) / 1000.0F);
    }
  }
  return out;
}

class CudaLocalMoeTest : public test::GpuTest {
 protected:
  // A layer's weights on the GPU.
  struct Layer {
    test::MoeValues values;
    std::unique_ptr<WeightPool> gate_up_pool, down_pool;
    std::vector<std::unique_ptr<LinearWeight>> keep;
    MoeWeights weights;
  };

  Layer make_layer(const MoeDims& d) {
    Layer out;
    out.values = test::random_moe(random_, d);
    out.gate_up_pool = cuda().make_weight_pool(d.num_experts, 2 * d.inner, d.hidden);
    out.down_pool = cuda().make_weight_pool(d.num_experts, d.hidden, d.inner);
    const auto pack = [&out](const std::vector<bf16>& w, int64_t n, int64_t k, WeightPool* pool) {
      const TensorView part(w.data(), DType::kBF16, {n, k});
      out.keep.push_back(cuda().pack_linear(std::span(&part, 1), Precision::kCompute, pool));
      return out.keep.back().get();
    };
    for (const test::ExpertValues& e : out.values.experts) {
      out.weights.gate_up.push_back(pack(e.gate_up, 2 * d.inner, d.hidden, out.gate_up_pool.get()));
      out.weights.down.push_back(pack(e.down, d.hidden, d.inner, out.down_pool.get()));
    }
    if (d.shared_inner > 0) {
      out.weights.shared_gate_up = pack(out.values.shared.gate_up, 2 * d.shared_inner, d.hidden, nullptr);
      out.weights.shared_down = pack(out.values.shared.down, d.hidden, d.shared_inner, nullptr);
    }
    return out;
  }

  LocalMoe& local() {
    LocalMoe* moe = cuda().local_moe();
    EPS_CHECK(moe != nullptr, "the CUDA op set has no LocalMoe");
    return *moe;
  }

  // What the oracle says of some of the tokens: it takes its time.
  struct Expected {
    std::vector<int64_t> tokens;
    std::vector<float> rows;      // [tokens, hidden]
    std::vector<double> allowed;  // of each
  };

  static Expected expect(const Layer& layer, const std::vector<float>& x, const Routed& routed) {
    const MoeDims& d = layer.values.dims;
    const auto num_tokens = std::ssize(x) / d.hidden;
    // Some 2e8 products, the first and the last token in any case.
    const int64_t cost = 3 * d.hidden * (d.top_k * d.inner + d.shared_inner);
    const int64_t most = std::max<int64_t>(8, 200'000'000 / cost);
    Expected out;
    for (int64_t i = 0; i < std::min(num_tokens, most); ++i) {
      out.tokens.push_back(num_tokens <= most ? i : i * (num_tokens - 1) / (most - 1));
    }
    for (const test::MoeRow& row : test::run_moe(layer.values, x, routed.idx, routed.weight, out.tokens)) {
      for (size_t h = 0; h < row.value.size(); ++h) {
        out.rows.push_back(static_cast<float>(row.value[h]));
        out.allowed.push_back(test::moe_tolerance(row.value[h], row.square[h]));
      }
    }
    return out;
  }

  void check_rows(const Expected& expected, const std::vector<float>& got, int64_t hidden, const std::string& what) {
    EXPECT_TRUE(std::all_of(got.begin(), got.end(), [](float v) { return std::isfinite(v); }))
        << what << ": rows not written";
    std::vector<float> part;
    for (const int64_t t : expected.tokens) {
      part.insert(part.end(), got.begin() + t * hidden, got.begin() + (t + 1) * hidden);
    }
    expect_close(
        part, expected.rows, [&](size_t i) { return expected.allowed[i]; }, what);
  }

  void check_layer(const Layer& layer, int64_t tokens, bool all_the_same) {
    const MoeDims& d = layer.values.dims;
    const auto x = random_.normal(tokens * d.hidden, 1.0, DType::kBF16);
    const auto x_on_gpu = on_device(DType::kBF16, {tokens, d.hidden}, x);
    const Routed routed = random_routing(random_, d, tokens, all_the_same);
    const auto idx = on_device({tokens, d.top_k}, routed.idx);
    const auto weight = on_device(DType::kF32, {tokens, d.top_k}, routed.weight);
    const std::string name =
        fmt::format("{} tokens, {} of {} experts [{} x {}], shared {}{}", tokens, d.top_k, d.num_experts, d.hidden,
                    d.inner, d.shared_inner, all_the_same ? ", all to the same" : "");
    const auto run = [&](bool ask_load, const LocalKernels& kernels) {
      local().set_routing(d.num_experts, idx.view(), weight.view());
      if (ask_load) {
        std::vector<int64_t> counted(static_cast<size_t>(d.num_experts), 0);
        for (const int32_t e : routed.idx) ++counted[static_cast<size_t>(e)];
        EXPECT_EQ(local().load(), counted) << name;
      }
      const auto out = poisoned(DType::kBF16, {tokens, d.hidden});
      local().run(layer.weights, kernels, x_on_gpu.view(), out.view());
      return out.values();
    };
    const Expected expected = expect(layer, x, routed);
    const LocalKernels grouped;
    const auto without_load = run(false, grouped);
    check_rows(expected, without_load, d.hidden, name + ", grouped");
    expect_equal(run(false, grouped), without_load, name + ", grouped, again");
    for (const moe::GemmKind up : {moe::GemmKind::kDense, moe::GemmKind::kGrouped}) {
      for (const moe::GemmKind down : {moe::GemmKind::kDense, moe::GemmKind::kGrouped}) {
        // Dense ones are cuBLAS's, which sanitizers take long for.
        if (test::is_brief() && (up == moe::GemmKind::kDense || down == moe::GemmKind::kDense)) continue;
        const std::string what =
            fmt::format("{}, {} and {}, load known", name, moe::to_string(up), moe::to_string(down));
        const auto with_load = run(true, {up, down});
        check_rows(expected, with_load, d.hidden, what);
        expect_equal(run(true, {up, down}), with_load, what + ", again");
      }
    }
    expect_equal(x_on_gpu.values(), x, name + ": the input");
  }

  void check_tokens(const MoeDims& d, std::initializer_list<int64_t> tokens) {
    const Layer layer = make_layer(d);
    for (const int64_t t : test::sizes(tokens)) {
      check_layer(layer, t, false);
      if (!test::is_brief()) check_layer(layer, t, true);
    }
  }
};

// Around the limits of the kernels: few rows (8), few tokens (64), and well beyond.
constexpr std::initializer_list<int64_t> kTokens = {0, 1, 3, 8, 9, 64, 65, 300, 2000};

TEST_F(CudaLocalMoeTest, DemoModel) { check_tokens({256, 64, 128, 32, 4}, kTokens); }
TEST_F(CudaLocalMoeTest, NoSharedExperts) { check_tokens({256, 64, 0, 16, 2}, kTokens); }
TEST_F(CudaLocalMoeTest, OneExpert) { check_tokens({128, 128, 64, 1, 1}, kTokens); }
TEST_F(CudaLocalMoeTest, EveryExpertForEveryToken) { check_tokens({64, 192, 64, 8, 8}, kTokens); }
TEST_F(CudaLocalMoeTest, ManyExperts) { check_tokens({256, 128, 256, 160, 6}, kTokens); }
TEST_F(CudaLocalMoeTest, MoreExpertsThanOneCallTakes) { check_tokens({64, 64, 0, 300, 8}, {1, 9, 300}); }
TEST_F(CudaLocalMoeTest, OddMultiplesOfEight) { check_tokens({72, 40, 24, 12, 3}, kTokens); }
TEST_F(CudaLocalMoeTest, WidthsThatTakeNoVectors) { check_tokens({36, 20, 12, 5, 2}, {0, 1, 8, 9, 65, 300}); }
TEST_F(CudaLocalMoeTest, SharedWidthAloneTakesNoVectors) { check_tokens({64, 64, 20, 5, 2}, {1, 8, 9, 65}); }
TEST_F(CudaLocalMoeTest, MoreChoicesThanTheSmallKernelTakes) { check_tokens({64, 64, 64, 32, 20}, {1, 8, 9, 65}); }
TEST_F(CudaLocalMoeTest, SizesOfV2Lite) { check_tokens({2048, 1408, 2816, 6, 4}, {1, 8, 9, 65, 700}); }

TEST_F(CudaLocalMoeTest, RouteIsTheGateThenTheLayer) {
  const MoeDims d{256, 64, 128, 32, 4};
  const Layer layer = make_layer(d);
  const GateParams gates[] = {{32, 4, TopkMethod::kGroupLimitedGreedy, 4, 2, false, 4.0F},
                              {32, 4, TopkMethod::kGreedy, 1, 1, true, 1.0F}};
  for (const GateParams& gate : gates) {
    for (const int64_t tokens : test::sizes(kTokens)) {
      const auto x = random_.normal(tokens * d.hidden, 1.0, DType::kBF16);
      const auto logits = random_.normal(tokens * d.num_experts, 2.0);
      Routed routed{std::vector<int32_t>(static_cast<size_t>(tokens * d.top_k)),
                    std::vector<float>(static_cast<size_t>(tokens * d.top_k))};
      reference().gate(gate, host(logits, {tokens, d.num_experts}), {},
                       {routed.idx.data(), DType::kI32, {tokens, d.top_k}}, host(routed.weight, {tokens, d.top_k}));
      const auto x_on_gpu = on_device(DType::kBF16, {tokens, d.hidden}, x);
      const auto logits_on_gpu = on_device(DType::kF32, {tokens, d.num_experts}, logits);
      const Expected expected = expect(layer, x, routed);
      for (const bool ask_load : {false, true}) {
        const auto out = poisoned(DType::kBF16, {tokens, d.hidden});
        local().route(gate, logits_on_gpu.view(), {});
        if (ask_load) {
          const auto load = local().load();
          EXPECT_EQ(std::accumulate(load.begin(), load.end(), int64_t{0}), tokens * d.top_k);
        }
        local().run(layer.weights, {}, x_on_gpu.view(), out.view());
        check_rows(expected, out.values(), d.hidden, fmt::format("routed, {} tokens", tokens));
      }
    }
  }
}

// Decoding plays a recorded step again with other tokens, which go to other experts.
TEST_F(CudaLocalMoeTest, ARecordedStepFollowsTheRouting) {
  const MoeDims d{256, 64, 128, 32, 4};
  const Layer layer = make_layer(d);
  const GateParams gate{32, 4, TopkMethod::kGreedy, 1, 1, false, 4.0F};
  for (const int64_t tokens : {1, 8, 40}) {
    const auto x_on_gpu = poisoned(DType::kBF16, {tokens, d.hidden});
    const auto logits_on_gpu = poisoned(DType::kF32, {tokens, d.num_experts});
    const auto out = poisoned(DType::kBF16, {tokens, d.hidden});
    for (int step = 0; step < 6; ++step) {
      const auto x = random_.normal(tokens * d.hidden, 1.0, DType::kBF16);
      const auto logits = random_.normal(tokens * d.num_experts, 2.0);
      Routed routed{std::vector<int32_t>(static_cast<size_t>(tokens * d.top_k)),
                    std::vector<float>(static_cast<size_t>(tokens * d.top_k))};
      reference().gate(gate, host(logits, {tokens, d.num_experts}), {},
                       {routed.idx.data(), DType::kI32, {tokens, d.top_k}}, host(routed.weight, {tokens, d.top_k}));
      std::vector<bf16> narrow(x.size());
      std::transform(x.begin(), x.end(), narrow.begin(), to_bf16);
      cuda().upload(narrow.data(), x_on_gpu.view());
      cuda().upload(logits.data(), logits_on_gpu.view());
      cuda().run_step(1000 + tokens, [&] {
        local().route(gate, logits_on_gpu.view(), {});
        local().run(layer.weights, {}, x_on_gpu.view(), out.view());
      });
      check_rows(expect(layer, x, routed), out.values(), d.hidden, fmt::format("step {} of {} tokens", step, tokens));
    }
  }
}

}  // namespace
}  // namespace eps::ops
