// The CUDA op set's rotation, cache and latent attention against the reference's.
#include <numbers>

#include "support/attention_oracle.h"
#include "support/gpu_test.h"

namespace eps {
namespace {

using test::host;
using test::stored_tolerance;

// cos and sin of positions as models have them.
struct RopeTable {
  int rope_dim;
  int64_t positions;
  std::vector<float> cos, sin;

  RopeTable(int dim, int64_t count) : rope_dim(dim), positions(count) {
    for (int64_t p = 0; p < count; ++p) {
      for (int i = 0; i < dim / 2; ++i) {
        const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * i / dim);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
  }
  Shape shape() const { return {positions, rope_dim / 2}; }
  RopeView on_host() const { return {rope_dim, host(cos, shape()), host(sin, shape())}; }
};

constexpr MlaParams kV2Lite{16, 128, 64, 128, 512, 0.0F};
constexpr MlaParams kDemo{8, 32, 16, 32, 96, 0.0F};

class CudaAttentionTest : public test::GpuTest {
 protected:
  // |a·c| + |b·s| of a rotation is at most |a| + |b|: two products, one sum, in f32.
  static double rotation_tolerance(float exact, const std::vector<float>& before, size_t i, size_t first) {
    const size_t pair = i - (i - first) % 2;
    const double magnitude = std::abs(static_cast<double>(before[pair])) + std::abs(before[pair + 1]);
    return stored_tolerance(exact, 2, magnitude, DType::kBF16);
  }

  void check_attention(const MlaParams& params, const std::vector<std::pair<int64_t, int64_t>>& count_and_context,
                       const std::string& name) {
    const auto is_long = [](const auto& sequence) { return sequence.second > 70; };
    if (test::is_brief() && std::ranges::any_of(count_and_context, is_long)) return;
    constexpr int kLayer = 1;
    constexpr int64_t kLayers = 3;
    const auto in = test::random_attention(random_, params, count_and_context);
    const MlaParams& p = in.params;
    const TensorView kv_b = host(in.kv_b, {int64_t{p.num_heads} * (p.nope_dim + p.v_dim), p.kv_lora_rank});
    const auto weight = cuda().pack_mla(kv_b, p);
    const int64_t tokens = in.num_tokens();
    const auto q = on_device(DType::kBF16, {tokens, int64_t{p.num_heads} * p.q_dim()}, in.q);
    const auto got = poisoned(DType::kBF16, {tokens, int64_t{p.num_heads} * p.v_dim});
    // Caches with room to spare, and NaN in every place that must not be read.
    std::vector<test::DeviceTensor> caches;
    std::vector<StepSequence> step;
    int64_t begin = 0;
    for (const auto& s : in.sequences) {
      const int64_t capacity = s.context + 13;
      for (const auto& [values, width] : {std::pair(&s.latent, p.kv_lora_rank), std::pair(&s.k_pe, p.rope_dim)}) {
        std::vector<float> all(static_cast<size_t>(kLayers * capacity * width), std::nanf(""));
        std::copy(values->begin(), values->end(), all.begin() + kLayer * capacity * width);
        caches.push_back(on_device(DType::kBF16, {kLayers * capacity, width}, all));
      }
      step.push_back({begin, s.q_count, s.context, capacity, caches[caches.size() - 2].view().data(),
                      caches.back().view().data()});
      begin += s.q_count;
    }
    const std::vector<int32_t> ids(static_cast<size_t>(tokens), 0);
    cuda().begin_step({ids, ids, step});
    cuda().mla_attention(p, *weight, q.view(), kLayer, got.view());
    const auto want = test::attend(in);
    const auto allowed = test::attention_tolerance(in, want, random_);
    expect_close(
        got.values(), want, [&](size_t i) { return allowed[i]; }, name);
    // The same once more: no state is left behind, and the same sum in the same order.
    const auto again = poisoned(DType::kBF16, {tokens, int64_t{p.num_heads} * p.v_dim});
    cuda().mla_attention(p, *weight, q.view(), kLayer, again.view());
    expect_equal(again.values(), got.values(), name + ", again");
  }

  void check_many(const MlaParams& p, const std::string& name) {
    check_attention(p, {{1, 1}}, name + ": the first token");
    check_attention(p, {{1, 1}, {1, 40}, {1, 70}, {1, 300}, {1, 1000}}, name + ": decode");
    check_attention(p, std::vector<std::pair<int64_t, int64_t>>(33, {1, 65}), name + ": decode of 33");
    check_attention(p, {{1, 40}, {2, 70}, {3, 300}, {4, 40}, {5, 70}, {6, 6}, {7, 300}, {8, 70}, {9, 40}},
                    name + ": 1 to 9 new tokens");
    check_attention(p, {{40, 40}, {70, 70}, {1, 1}}, name + ": whole");
    check_attention(p, {{40, 40}, {1, 1}, {300, 300}}, name + ": whole, and a longer one");
    check_attention(p, {{17, 70}, {0, 9}, {1, 40}, {33, 65}}, name + ": chunks");
    check_attention(p, {{40, 1000}, {0, 70}, {129, 300}, {1, 300}, {0, 1}}, name + ": chunks of longer ones");
    check_attention(p, {{0, 5}, {0, 1}}, name + ": nothing new at all");
  }
};

TEST_F(CudaAttentionTest, Rope) {
  struct Dims {
    int num_heads, head_dim, rope_dim;
  };
  for (const Dims& d : {Dims{16, 192, 64}, Dims{8, 48, 16}, Dims{3, 24, 8}, Dims{1, 576, 64}, Dims{2, 12, 6},
                        Dims{5, 2, 2}, Dims{3, 21, 10}}) {
    const RopeTable table(d.rope_dim, 1100);
    const auto cos = on_device(DType::kF32, table.shape(), table.cos);
    const auto sin = on_device(DType::kF32, table.shape(), table.sin);
    for (const int64_t rows : test::sizes({0, 1, 3, 300})) {
      const int64_t width = int64_t{d.num_heads} * d.head_dim;
      std::vector<int32_t> positions(static_cast<size_t>(rows));
      for (int32_t& p : positions) p = static_cast<int32_t>(random_.draw(0, 1099));
      const auto before = random_.normal(rows * width, 1.0, DType::kBF16);
      auto want = before;
      const auto x = on_device(DType::kBF16, {rows, width}, before);
      cuda().begin_step({positions, positions, {}});
      reference().begin_step({positions, positions, {}});
      cuda().rope(x.view(), d.head_dim, {d.rope_dim, cos.view(), sin.view()});
      reference().rope(host(want, {rows, width}), d.head_dim, table.on_host());
      const auto allowed = [&](size_t i) {
        const size_t head_begin = i - i % static_cast<size_t>(d.head_dim);
        const size_t first = head_begin + static_cast<size_t>(d.head_dim - d.rope_dim);
        return i < first ? 0.0 : rotation_tolerance(want[i], before, i, first);
      };
      expect_close(
          x.values(), want, allowed,
          fmt::format("rope of {} rows, {} heads of {}, {} rotated", rows, d.num_heads, d.head_dim, d.rope_dim));
    }
  }
}

TEST_F(CudaAttentionTest, StoreLatentsWritesItsPlacesOnly) {
  constexpr int64_t kLayers = 3;
  for (const auto& [lora, rope] : std::vector<std::pair<int, int>>{{512, 64}, {96, 16}, {16, 8}, {4, 8}, {33, 6}}) {
    const MlaParams p{1, 8, rope, 8, lora, 1.0F};
    const RopeTable table(rope, 400);
    const auto cos = on_device(DType::kF32, table.shape(), table.cos);
    const auto sin = on_device(DType::kF32, table.shape(), table.sin);
    const auto norm = random_.normal(lora);
    const auto norm_on_gpu = on_device(DType::kF32, {lora}, norm);
    // A whole prompt, a chunk at the end of a full cache, one token, nothing.
    struct Part {
      int64_t count, context, capacity;
    };
    for (const std::vector<Part>& parts : {std::vector<Part>{{1, 1, 1}},
                                           {{7, 7, 20}, {33, 300, 300}, {0, 5, 9}, {1, 18, 30}},
                                           std::vector<Part>{{300, 390, 400}}}) {
      for (const int layer : {0, 2}) {
        std::vector<std::vector<float>> want;
        std::vector<test::DeviceTensor> caches;
        std::vector<StepSequence> on_gpu;
        std::vector<StepSequence> on_host;
        std::vector<int32_t> positions;
        want.reserve(2 * parts.size());  // pointers into it are kept
        for (const Part& part : parts) {
          for (const int width : {lora, rope}) {
            want.push_back(random_.normal(kLayers * part.capacity * width, 1.0, DType::kBF16));
            caches.push_back(on_device(DType::kBF16, {kLayers * part.capacity, width}, want.back()));
          }
          const auto begin = std::ssize(positions);
          on_gpu.push_back({begin, part.count, part.context, part.capacity, caches[caches.size() - 2].view().data(),
                            caches.back().view().data()});
          on_host.push_back(
              {begin, part.count, part.context, part.capacity, want[want.size() - 2].data(), want.back().data()});
          for (int64_t i = part.context - part.count; i < part.context; ++i) {
            positions.push_back(static_cast<int32_t>(i));
          }
        }
        const auto tokens = std::ssize(positions);
        const Shape shape{tokens, lora + rope};
        const auto before = random_.normal(shape.numel(), 2.0, DType::kBF16);
        const auto old = want;
        auto kv = before;
        const auto kv_on_gpu = on_device(DType::kBF16, shape, before);
        cuda().begin_step({positions, positions, on_gpu});
        reference().begin_step({positions, positions, on_host});
        cuda().store_latents(p, kv_on_gpu.view(), norm_on_gpu.view(), 1e-6F, {rope, cos.view(), sin.view()}, layer);
        reference().store_latents(p, host(kv, shape), host(norm, {lora}), 1e-6F, table.on_host(), layer);
        for (size_t s = 0; s < parts.size(); ++s) {
          const Part& part = parts[s];
          const auto first = layer * part.capacity + part.context - part.count;
          const auto is_new = [&](size_t place) {
            const auto at = static_cast<int64_t>(place);
            return at >= first && at < first + part.count;
          };
          const std::string what = fmt::format("latents {} + {}, layer {}, sequence {}", lora, rope, layer, s);
          const auto latent_allowed = [&](size_t i) {
            if (!is_new(i / static_cast<size_t>(lora))) return 0.0;
            const double exact = want[2 * s][i];
            return stored_tolerance(exact, lora, std::abs(exact), DType::kBF16, 6 * 0x1p-24);  // as rms_norm
          };
          const auto key_allowed = [&](size_t i) {
            const size_t place = i / static_cast<size_t>(rope);
            if (!is_new(place)) return 0.0;
            const auto row = static_cast<size_t>(on_host[s].q_begin + static_cast<int64_t>(place) - first);
            const size_t key = row * static_cast<size_t>(lora + rope) + static_cast<size_t>(lora);
            return rotation_tolerance(want[2 * s + 1][i], before, key + i % static_cast<size_t>(rope), key);
          };
          expect_close(caches[2 * s].values(), want[2 * s], latent_allowed, what);
          expect_close(caches[2 * s + 1].values(), want[2 * s + 1], key_allowed, what + ", keys");
        }
      }
    }
  }
}

TEST_F(CudaAttentionTest, V2LiteDims) {
  check_many(kV2Lite, "V2-Lite");
  check_attention(kV2Lite, {{1000, 1000}}, "V2-Lite: a prompt of 1000");
}

TEST_F(CudaAttentionTest, V2LiteDimsOverALongContext) {
  MlaParams p = kV2Lite;
  p.num_heads = 2;  // the oracle's time
  check_attention(p, {{1, 4500}, {3, 4500}}, "decode over 4500");
  check_attention(p, {{20, 4500}}, "a short continuation of 4500");
  check_attention(p, {{40, 4500}}, "a chunk after 4460");
}

TEST_F(CudaAttentionTest, DemoDims) { check_many(kDemo, "demo"); }

TEST_F(CudaAttentionTest, OddDims) {
  for (const int lora : {4, 16, 33, 96}) {
    const MlaParams p{3, 16, 8, 12, lora, 0.0F};
    check_many(p, fmt::format("odd dims, lora {}", lora));
  }
  check_many({5, 24, 10, 7, 40, 0.0F}, "odd dims, nothing a multiple of 16");
}

TEST_F(CudaAttentionTest, PrefillDimsOfOtherModels) {
  // Large enough for the tensor-core prefill, not those of the tuned decode kernel.
  check_many({4, 96, 32, 64, 256, 0.0F}, "4 heads of 96 + 32");
}

}  // namespace
}  // namespace eps
