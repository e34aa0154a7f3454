// The CUDA op set's row-wise ops against the reference's, over edge shapes.
#include <limits>

#include "ops/local_moe.h"
#include "support/gpu_test.h"

namespace eps {
namespace {

using test::host;
using test::rounded;
using test::stored_tolerance;
using test::unit_roundoff;

constexpr DType kFloats[] = {DType::kF32, DType::kBF16};
constexpr double kU32 = 0x1p-24;

// One element; one off 8 on both sides; warp and block edges; model widths.
constexpr int64_t kWidths[] = {1, 7, 8, 24, 33, 256, 2048, 5120};
const std::vector<int64_t> kRows = test::sizes({0, 1, 3, 300});

class CudaOpsTest : public test::GpuTest {};

TEST_F(CudaOpsTest, MemoryMovesWhole) {
  for (const int64_t n : {1, 255, 70'000, 5'000'001}) {  // the last in several pieces of pinned memory
    const auto values = random_.normal(n);
    const auto x = on_device(DType::kF32, {n}, values);
    const auto y = poisoned(DType::kF32, {n});
    cuda().copy(x.view(), y.view());
    expect_equal(y.values(), values, fmt::format("copy of {}", n));
    Buffer storage(cuda().memory());
    std::vector<float> back(values.size());
    cuda().download(cuda().place(host(values, {n}), storage), back.data());
    expect_equal(back, values, fmt::format("place of {}", n));
  }
}

TEST_F(CudaOpsTest, EmbedReadsEveryStoredType) {
  constexpr int64_t kVocab = 50;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const int64_t width : kWidths) {
      for (const int64_t rows : kRows) {
        const auto values = rounded(random_.normal(kVocab * width), dtype);
        std::vector<int32_t> ids(static_cast<size_t>(rows));
        for (int32_t& id : ids) id = static_cast<int32_t>(random_.draw(0, kVocab - 1));
        if (rows > 1) ids[0] = kVocab - 1;
        const auto table = on_device(dtype, {kVocab, width}, values);
        const auto got = poisoned(DType::kF32, {rows, width});
        std::vector<float> want(static_cast<size_t>(rows * width));
        cuda().begin_step({ids, {}, {}});
        reference().begin_step({ids, {}, {}});
        cuda().embed(table.view(), got.view());
        reference().embed(host(values, {kVocab, width}), host(want, {rows, width}));
        expect_equal(got.values(), want, fmt::format("embed {} [{}, {}]", to_string(dtype), rows, width));
      }
    }
  }
}

// The mean of squares is a sum of positive terms, so its relative error is the bound itself; the root halves it, the
// reciprocal root is off by 2 ulp, the products by one each.
double norm_tolerance(double exact, int64_t width, DType stored) {
  return stored_tolerance(exact, width, std::abs(exact), stored, 6 * kU32);
}

TEST_F(CudaOpsTest, RmsNorm) {
  for (const DType in : kFloats) {
    for (const DType out : kFloats) {
      for (const int64_t width : kWidths) {
        for (const int64_t rows : kRows) {
          const Shape shape{rows, width};
          const auto values = random_.normal(rows * width, 3.0, in);
          const auto weights = random_.normal(width);
          const auto x = on_device(in, shape, values);
          const auto w = on_device(DType::kF32, {width}, weights);
          const auto got = poisoned(out, shape);
          std::vector<float> want(values.size());
          cuda().rms_norm(x.view(), w.view(), 1e-6F, got.view());
          reference().rms_norm(host(values, shape), host(weights, {width}), 1e-6F, host(want, shape));
          const auto allowed = [&](size_t i) { return norm_tolerance(want[i], width, out); };
          const std::string what =
              fmt::format("rms_norm {} -> {} [{}, {}]", to_string(in), to_string(out), rows, width);
          expect_close(got.values(), want, allowed, what);
          expect_equal(x.values(), values, what + ": its input");
          if (in != out) continue;
          cuda().rms_norm(x.view(), w.view(), 1e-6F, x.view());
          expect_close(x.values(), want, allowed, what + " in place");
        }
      }
    }
  }
}

TEST_F(CudaOpsTest, AddRmsNorm) {
  for (const bool with_delta : {false, true}) {
    for (const int64_t width : kWidths) {
      for (const int64_t rows : kRows) {
        const Shape shape{rows, width};
        auto values = random_.normal(rows * width, 3.0);
        const auto deltas = random_.normal(rows * width, 1.0, DType::kBF16);
        const auto weights = random_.normal(width);
        const auto hidden = on_device(DType::kF32, shape, values);
        const auto delta = on_device(DType::kBF16, shape, deltas);
        const auto w = on_device(DType::kF32, {width}, weights);
        const auto got = poisoned(DType::kBF16, shape);
        std::vector<float> want(values.size());
        cuda().add_rms_norm(hidden.view(), with_delta ? delta.view() : TensorView(), w.view(), 1e-6F, got.view());
        reference().add_rms_norm(host(values, shape), with_delta ? host(deltas, shape) : TensorView(),
                                 host(weights, {width}), 1e-6F, host(want, shape));
        const std::string what = fmt::format("add_rms_norm [{}, {}]{}", rows, width, with_delta ? " + delta" : "");
        expect_equal(hidden.values(), values, what + ": hidden");  // one addition, rounded once
        expect_close(
            got.values(), want, [&](size_t i) { return norm_tolerance(want[i], width, DType::kBF16); }, what);
      }
    }
  }
}

TEST_F(CudaOpsTest, ToComputeRoundsToNearestEven) {
  for (const int64_t n : {0, 1, 7, 8, 2047, 2048, 2049, 100'003}) {
    auto values = random_.normal(n, 100.0);
    // Ties both ways, the largest that does not overflow, the smallest, one that does overflow, infinity, signed zero.
    const float special[] = {0x1.01p0F,       0x1.03p0F,  0x1.feffffp127F, 0x1p-126F,
                             0x1.fffffep127F, -0x1.01p0F, -0.0F,           std::numeric_limits<float>::infinity()};
    std::copy_n(special, std::min<int64_t>(n, std::ssize(special)), values.begin());
    const auto x = on_device(DType::kF32, {1, n}, values);
    const auto got = poisoned(DType::kBF16, {1, n});
    cuda().to_compute(x.view(), got.view());
    const auto bytes = got.bytes();
    int64_t num_wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      bf16 v{};
      std::memcpy(&v, bytes.data() + i * sizeof(v), sizeof(v));
      num_wrong += static_cast<int64_t>(v.bits != to_bf16(values[i]).bits);
    }
    EXPECT_EQ(num_wrong, 0) << "of " << n;
  }
}

TEST_F(CudaOpsTest, AddAndAddBiasRoundOnce) {
  for (const DType dtype : kFloats) {
    for (const int64_t width : kWidths) {
      for (const int64_t rows : kRows) {
        const Shape shape{rows, width};
        const std::string what = fmt::format("{} [{}, {}]", to_string(dtype), rows, width);
        auto sums = random_.normal(rows * width);
        const auto y_values = random_.normal(rows * width, 1.0, dtype);
        const auto x = on_device(DType::kF32, shape, sums);
        cuda().add(x.view(), on_device(dtype, shape, y_values).view());
        reference().add(host(sums, shape), host(y_values, shape));
        expect_equal(x.values(), sums, "add " + what);

        auto biased = random_.normal(rows * width, 1.0, dtype);
        const auto bias = random_.normal(width);
        const auto z = on_device(dtype, shape, biased);
        cuda().add_bias(z.view(), on_device(DType::kF32, {width}, bias).view());
        if (rows > 0) reference().add_bias(host(biased, shape), host(bias, {width}));
        expect_equal(z.values(), rounded(biased, dtype), "add_bias " + what);
      }
    }
  }
}

TEST_F(CudaOpsTest, SiluMul) {
  for (const DType dtype : kFloats) {
    for (const int64_t width : {1, 7, 8, 33, 64, 1408, 2816}) {
      for (const int64_t rows : kRows) {
        auto values = random_.normal(rows * 2 * width, 4.0, dtype);
        const float extremes[] = {-200.0F, 200.0F, -88.0F, 88.0F, -20.0F, 0.0F};  // exp overflows f32 past 88.7
        for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
          values[r * 2 * static_cast<size_t>(width)] = extremes[r % std::size(extremes)];
        }
        const auto x = on_device(dtype, {rows, 2 * width}, values);
        const auto got = poisoned(DType::kBF16, {rows, width});
        std::vector<float> want(static_cast<size_t>(rows * width));
        cuda().silu_mul(x.view(), got.view());
        reference().silu_mul(host(values, {rows, 2 * width}), host(want, {rows, width}));
        const auto allowed = [&](size_t i) {
          const auto w = static_cast<size_t>(width);
          const double gate = values[i / w * 2 * w + i % w];
          // exp(x) by hardware is off by 2 + 1.16·|x| ulp (CUDA's guide); quotient and products by one each.
          const double input_error = (8 + 4 * std::abs(gate)) * kU32;
          return stored_tolerance(want[i], 1, std::abs(want[i]), DType::kBF16, input_error);
        };
        expect_close(got.values(), want, allowed, fmt::format("silu_mul {} [{}, {}]", to_string(dtype), rows, width));
      }
    }
  }
}

TEST_F(CudaOpsTest, RowsByPointer) {
  for (const DType dtype : kFloats) {
    for (const int64_t width : {1, 7, 8, 64, 129, 2048, 5120}) {
      for (const int64_t rows : kRows) {
        const Shape shape{40, width};
        const auto values = random_.normal(40 * width, 1.0, dtype);
        const auto x = on_device(dtype, shape, values);
        std::vector<const std::byte*> sources;
        std::vector<float> want;
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t r = random_.draw(0, 39);
          sources.push_back(x.row(r));
          want.insert(want.end(), values.begin() + r * width, values.begin() + (r + 1) * width);
        }
        const auto got = poisoned(dtype, {rows, width});
        cuda().gather_rows(sources, got.view());
        expect_equal(got.values(), want, fmt::format("gather_rows {} [{}, {}]", to_string(dtype), rows, width));
        if (dtype != DType::kF32) continue;
        const auto weight = random_.normal(rows);
        cuda().scale_rows(got.view(), weight);
        reference().scale_rows(host(want, {rows, width}), weight);
        expect_equal(got.values(), want, fmt::format("scale_rows [{}, {}]", rows, width));
      }
    }
  }
}

TEST_F(CudaOpsTest, AddRowsKeepsTheOrderWithinARow) {
  for (const int64_t width : {1, 9, 64, 129, 1000, 5120}) {
    for (const int64_t num_pairs : {0, 1, 39, 2000}) {
      const Shape shape{40, width};
      auto want = random_.normal(40 * width);
      const auto x = on_device(DType::kF32, shape, want);
      std::vector<RowPair> on_gpu;
      std::vector<RowPair> on_host;
      // Long chains on few rows, of sources that stay as they are: the order of additions shows in the bits.
      for (int64_t i = 0; i < num_pairs; ++i) {
        const int64_t to = random_.draw(0, 4);
        const int64_t from = random_.draw(5, 39);
        on_gpu.push_back({reinterpret_cast<float*>(x.row(to)), reinterpret_cast<const float*>(x.row(from))});
        on_host.push_back({want.data() + to * width, want.data() + from * width});
      }
      cuda().add_rows(on_gpu, width);
      reference().add_rows(on_host, width);
      expect_equal(x.values(), want, fmt::format("add_rows, {} pairs of {}", num_pairs, width));
    }
  }
}

// Played again from a recording, a step gives what it gives when run, with the new step's inputs.
TEST_F(CudaOpsTest, RunStepPlaysTheSameOps) {
  constexpr int64_t kWidth = 256;
  const auto table_values = random_.normal(100 * kWidth, 1.0, DType::kBF16);
  const std::vector<float> ones(kWidth, 1.0F);
  const auto table = on_device(DType::kBF16, {100, kWidth}, table_values);
  const auto w = on_device(DType::kF32, {kWidth}, ones);
  for (const int64_t rows : {1, 5, 1, 5}) {
    const auto hidden = poisoned(DType::kF32, {rows, kWidth});
    const auto got = poisoned(DType::kBF16, {rows, kWidth});
    for (int step = 0; step < 6; ++step) {
      std::vector<int32_t> ids(static_cast<size_t>(rows));
      for (int32_t& id : ids) id = static_cast<int32_t>(random_.draw(0, 99));
      cuda().begin_step({ids, {}, {}});
      reference().begin_step({ids, {}, {}});
      cuda().run_step(rows, [&] {
        cuda().embed(table.view(), hidden.view());
        cuda().add_rms_norm(hidden.view(), {}, w.view(), 1e-6F, got.view());
      });
      std::vector<float> x(static_cast<size_t>(rows * kWidth));
      auto want = x;
      reference().embed(host(table_values, {100, kWidth}), host(x, {rows, kWidth}));
      reference().rms_norm(host(x, {rows, kWidth}), host(ones, {kWidth}), 1e-6F, host(want, {rows, kWidth}));
      const auto allowed = [&](size_t i) { return norm_tolerance(want[i], kWidth, DType::kBF16); };
      expect_close(got.values(), want, allowed, fmt::format("step {} of {} rows", step, rows));
    }
  }
}

// A recorded step must not wait for the device, copy from or to host memory, or allocate. Such a call succeeds while
// the step runs as it is, and fails, naming the op, when it is recorded.
TEST_F(CudaOpsTest, ARecordedStepRefusesToWait) {
  const auto rows = on_device(DType::kF32, {2, 64}, std::vector<float>(128, 1.0F));
  std::vector<float> values(128);
  const std::vector<float> weight = {2.0F, 1.0F};
  const std::vector<const std::byte*> sources = {rows.row(0), rows.row(1)};
  const auto gathered = poisoned(DType::kF32, {2, 64});
  const std::vector<RowPair> pairs = {
      {reinterpret_cast<float*>(gathered.row(0)), reinterpret_cast<const float*>(rows.row(1))}};
  const std::vector<SampleParams> params(2);
  std::vector<int32_t> tokens(2);
  const auto topk_idx = on_device({2, 1}, std::vector<int32_t>{0, 1});
  const std::vector<std::pair<std::string, std::function<void()>>> cases = {
      {"download", [&] { cuda().download(rows.view(), values.data()); }},
      {"upload", [&] { cuda().upload(values.data(), rows.view()); }},
      {"wait", [&] { cuda().wait(); }},
      {"begin_step",
       [&] {
         cuda().begin_step({{}, {}, {}});
       }},
      {"gather_rows", [&] { cuda().gather_rows(sources, gathered.view()); }},
      {"scale_rows", [&] { cuda().scale_rows(rows.view(), weight); }},
      {"add_rows", [&] { cuda().add_rows(pairs, 64); }},
      {"pick_tokens", [&] { cuda().pick_tokens(rows.view(), params, tokens); }},
      {"LocalMoe::load",
       [&] {
         cuda().local_moe()->set_routing(2, topk_idx.view(), rows.view());
         cuda().local_moe()->load();
       }},
      {"DeviceMemory::allocate", [&] { Buffer(cuda().memory()).reserve(64); }},
      {"PinnedMemory::allocate", [&] { Buffer(cuda().staging_memory()).reserve(64); }},
  };
  int64_t key = 5000;
  for (const auto& [op, call] : cases) {
    ++key;
    EXPECT_TRUE(cuda().run_step(key, call)) << op;
    for (int again = 0; again < 2; ++again) {
      try {
        cuda().run_step(key, call);
        ADD_FAILURE() << op << " was recorded";
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::kInternal) << e.what();
        EXPECT_EQ(e.where(), op) << e.what();
      }
    }
  }
  cuda().download(rows.view(), values.data());  // outside of a step all of them work
}

}  // namespace
}  // namespace eps
