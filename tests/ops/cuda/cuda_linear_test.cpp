// The CUDA op set's products against the reference's: single weights, pools of experts, f32 weights.
#include "support/gpu_test.h"

namespace eps {
namespace {

using test::host;
using test::rounded;
using test::stored_tolerance;
using test::unit_roundoff;

std::vector<float> absolute(std::vector<float> v) {
  for (float& x : v) x = std::abs(x);
  return v;
}

class CudaLinearTest : public test::GpuTest {
 protected:
  std::vector<float> multiply(const std::vector<float>& x, const std::vector<float>& w, int64_t m, int64_t n,
                              int64_t k) {
    std::vector<float> y(static_cast<size_t>(m * n));
    const TensorView part = host(w, {n, k});
    const auto weight = reference().pack_linear(std::span(&part, 1), Precision::kCompute);
    const LinearTask task{weight.get(), host(x, {m, k}), host(y, {m, n})};
    reference().linear(std::span(&task, 1));
    return y;
  }
  // Against the exact product of x and w, whose elements the device holds within `weight_error`.
  void expect_product(const std::vector<float>& got, const std::vector<float>& x, const std::vector<float>& w,
                      const Shape& shape, int64_t k, DType stored, double weight_error, const std::string& what) {
    const auto want = multiply(x, w, shape[0], shape[1], k);
    const auto magnitude = multiply(absolute(x), absolute(w), shape[0], shape[1], k);
    expect_close(
        got, want, [&](size_t i) { return stored_tolerance(want[i], k, magnitude[i], stored, weight_error); }, what);
  }
};

const std::vector<int64_t> kTokens = test::sizes({0, 1, 7, 8, 9, 33, 300});

TEST_F(CudaLinearTest, ShapesOfEveryKind) {
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1},    {8, 8},    {17, 33},   {33, 7},     {64, 64},  {100, 40},
                                                {129, 65}, {256, 96}, {520, 136}, {576, 2048}, {768, 256}};
  for (const auto& [n, k] : shapes) {
    const auto w = random_.normal(n * k, 1.0, DType::kBF16);
    const TensorView part = host(w, {n, k});
    const auto weight = cuda().pack_linear(std::span(&part, 1), Precision::kCompute);
    EXPECT_EQ(weight->out_features(), n);
    EXPECT_EQ(weight->in_features(), k);
    for (const int64_t m : kTokens) {
      const auto x = random_.normal(m * k, 1.0, DType::kBF16);
      const auto on_gpu = on_device(DType::kBF16, {m, k}, x);
      for (const DType stored : {DType::kBF16, DType::kF32}) {
        const auto y = poisoned(stored, {m, n});
        const LinearTask task{weight.get(), on_gpu.view(), y.view()};
        cuda().linear(std::span(&task, 1));
        expect_product(y.values(), x, w, {m, n}, k, stored, 0,
                       fmt::format("linear [{}, {}] x [{}, {}] -> {}", m, k, n, k, to_string(stored)));
      }
    }
  }
}

TEST_F(CudaLinearTest, ARowDoesNotDependOnItsNeighbours) {
  constexpr int64_t kN = 129;
  constexpr int64_t kK = 256;
  const auto w = random_.normal(kN * kK, 1.0, DType::kBF16);
  const TensorView part = host(w, {kN, kK});
  const auto weight = cuda().pack_linear(std::span(&part, 1), Precision::kCompute);
  const auto x = random_.normal(8 * kK, 1.0, DType::kBF16);
  const auto on_gpu = on_device(DType::kBF16, {8, kK}, x);
  const auto all = poisoned(DType::kF32, {8, kN});
  const LinearTask together{weight.get(), on_gpu.view(), all.view()};
  cuda().linear(std::span(&together, 1));
  for (int64_t r = 0; r < 8; ++r) {
    const auto y = poisoned(DType::kF32, {1, kN});
    const LinearTask alone{weight.get(), on_gpu.view().rows(r, r + 1), y.view()};
    cuda().linear(std::span(&alone, 1));
    const auto want = all.values();
    expect_equal(y.values(), {want.begin() + r * kN, want.begin() + (r + 1) * kN}, fmt::format("row {}", r));
  }
}

TEST_F(CudaLinearTest, WeightsOfEveryStoredTypeAndInParts) {
  constexpr int64_t kN = 40;
  constexpr int64_t kK = 72;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const auto w = rounded(random_.normal(2 * kN * kK), dtype);
    std::vector<std::byte> stored(w.size() * size_of(dtype));
    for (size_t i = 0; i < w.size(); ++i) {
      if (dtype == DType::kF32) reinterpret_cast<float*>(stored.data())[i] = w[i];
      if (dtype == DType::kBF16) reinterpret_cast<bf16*>(stored.data())[i] = to_bf16(w[i]);
      if (dtype == DType::kF16) reinterpret_cast<f16*>(stored.data())[i] = to_f16(w[i]);
    }
    const TensorView all(stored.data(), dtype, {2 * kN, kK});
    const TensorView parts[] = {all.rows(0, kN), all.rows(kN, 2 * kN)};
    const auto weight = cuda().pack_linear(parts, Precision::kCompute);
    for (const int64_t m : {3, 20}) {
      const auto x = random_.normal(m * kK, 1.0, DType::kBF16);
      const auto y = poisoned(DType::kF32, {m, 2 * kN});
      const auto on_gpu = on_device(DType::kBF16, {m, kK}, x);
      const LinearTask task{weight.get(), on_gpu.view(), y.view()};
      cuda().linear(std::span(&task, 1));
      expect_product(y.values(), x, w, {m, 2 * kN}, kK, DType::kF32,
                     dtype == DType::kBF16 ? 0 : unit_roundoff(DType::kBF16),
                     fmt::format("{} weights in parts, {} rows", to_string(dtype), m));
    }
  }
}

// The gate's weights: held as two bf16 numbers, so off by the rounding of a rounding's rest.
TEST_F(CudaLinearTest, F32WeightsKeepWhatBf16DoesNotHold) {
  const double weight_error = unit_roundoff(DType::kBF16) * unit_roundoff(DType::kBF16);
  const std::pair<int64_t, int64_t> shapes[] = {{8, 64}, {33, 7}, {32, 256}, {160, 2048}};
  for (const auto& [n, k] : shapes) {
    for (const bool is_exact : {true, false}) {
      const auto w = random_.normal(n * k, 1.0, is_exact ? DType::kBF16 : DType::kF32);
      const TensorView part = host(w, {n, k});
      const auto weight = cuda().pack_linear(std::span(&part, 1), Precision::kF32);
      for (const int64_t m : kTokens) {
        const auto x = random_.normal(m * k, 1.0, DType::kBF16);
        const auto y = poisoned(DType::kF32, {m, n});
        const auto on_gpu = on_device(DType::kBF16, {m, k}, x);
        const LinearTask task{weight.get(), on_gpu.view(), y.view()};
        cuda().linear(std::span(&task, 1));
        expect_product(
            y.values(), x, w, {m, n}, k, DType::kF32, is_exact ? 0 : weight_error,
            fmt::format("f32 weights{}, [{}, {}] x [{}, {}]", is_exact ? " that bf16 holds" : "", m, k, n, k));
      }
    }
  }
}

// Rows for each expert; `skip_empty`: experts without rows get no task.
struct PoolCase {
  const char* name;
  std::vector<int64_t> rows;
  bool skip_empty = false;
};

std::vector<PoolCase> pool_cases(test::RandomValues& random) {
  std::vector<PoolCase> out = {{"one expert", {5}},
                               {"two, one row each", {1, 1}},
                               {"none has rows", {0, 0, 0, 0}},
                               {"all rows in the last", {0, 0, 0, 300}},
                               {"all rows in the first", {129, 0, 0, 0}},
                               {"tile edges", {127, 128, 129, 255, 256, 257, 0, 1}}};
  PoolCase ragged{"ragged", {}};
  for (int e = 0; e < 33; ++e) ragged.rows.push_back(random.draw(0, 2) == 0 ? 0 : random.draw(1, 40));
  out.push_back(ragged);
  PoolCase sparse{"160 experts, few busy", std::vector<int64_t>(160, 0), true};
  for (int i = 0; i < 12; ++i) sparse.rows[static_cast<size_t>(random.draw(0, 159))] += random.draw(1, 3);
  out.push_back(sparse);
  return out;
}

TEST_F(CudaLinearTest, TasksOfOnePool) {
  // Tile multiples, odd multiples of 8, and widths that no tensor-core kernel takes.
  const std::pair<int64_t, int64_t> shapes[] = {{128, 256}, {256, 64}, {512, 128}, {40, 72}, {17, 33}};
  for (const PoolCase& c : pool_cases(random_)) {
    for (const auto& [n, k] : shapes) {
      const auto pool = cuda().make_weight_pool(std::ssize(c.rows), n, k);
      std::vector<std::vector<float>> w;
      std::vector<std::unique_ptr<LinearWeight>> weights;
      int64_t total = 0;
      for (const int64_t rows : c.rows) {
        w.push_back(random_.normal(n * k, 1.0, DType::kBF16));
        const TensorView part = host(w.back(), {n, k});
        weights.push_back(cuda().pack_linear(std::span(&part, 1), Precision::kCompute, pool.get()));
        total += rows;
      }
      const auto x = random_.normal(total * k, 1.0, DType::kBF16);
      const auto on_gpu = on_device(DType::kBF16, {total, k}, x);
      for (const bool in_order : {true, false}) {  // the other way round they cannot go as one call
        if (!in_order && test::is_brief()) continue;
        for (const DType stored : {DType::kBF16, DType::kF32}) {
          const auto y = poisoned(stored, {total, n});
          std::vector<LinearTask> tasks;
          int64_t begin = 0;
          for (size_t e = 0; e < c.rows.size(); ++e) {
            const int64_t end = begin + c.rows[e];
            if (c.rows[e] > 0 || !c.skip_empty) {
              tasks.push_back({weights[e].get(), on_gpu.view().rows(begin, end), y.view().rows(begin, end)});
            }
            begin = end;
          }
          if (!in_order) std::reverse(tasks.begin(), tasks.end());
          cuda().linear(tasks);
          const auto got = y.values();
          begin = 0;
          for (size_t e = 0; e < c.rows.size(); ++e) {
            const int64_t rows = c.rows[e];
            if (rows == 0) continue;
            const auto part = [begin, rows](const std::vector<float>& v, int64_t width) {
              return std::vector<float>(v.begin() + begin * width, v.begin() + (begin + rows) * width);
            };
            expect_product(part(got, n), part(x, k), w[e], {rows, n}, k, stored, 0,
                           fmt::format("{}, [{}, {}], expert {}, {}{}", c.name, n, k, e, to_string(stored),
                                       in_order ? "" : ", reversed"));
            begin += rows;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace eps
