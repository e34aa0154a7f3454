// Memory, and what is done to each row or element alone.
#include <cmath>
#include <limits>

#include "ops/cases/op_cases.h"
#include "support/host_views.h"
#include "support/tolerance.h"

namespace eps::ops {

using namespace test;  // values, tensors and tolerances
namespace {

constexpr double kU32 = 0x1p-24;

// One row and one token fewer or more than vectors, warps and blocks have; tasks of several threads.
constexpr int64_t kRows[] = {0, 1, 3, 31, 32, 33, 300};
// One element; both sides of 8, 16 and 32; more than one block; the widths of models.
constexpr int64_t kWidths[] = {1, 7, 8, 15, 16, 24, 33, 129, 256, 1000, 2048, 5120};

using RowsBody = void (*)(OpCaseRun&, int64_t rows, int64_t width);

// Every number of rows with every width.
Operation over_rows(const std::string& name, RowsBody body) {
  Operation out{name, {}};
  for (const int64_t width : kWidths) {
    for (const int64_t rows : kRows) {
      // The largest are only a matter of time.
      const bool is_large = rows > 70 && width > 256;
      out.cases.push_back({fmt::format("[{}, {}]", rows, width), is_large ? kLargeCase : CaseSize{rows, rows * width},
                           [body, rows, width](OpCaseRun& run) { body(run, rows, width); }});
    }
  }
  return out;
}

Operation memory_moves() {
  Operation out{"copy_and_place", {}};
  for (const int64_t n : {1, 255, 70'000, 5'000'001}) {  // the last in several pieces of pinned memory
    out.cases.push_back({fmt::format("[{}]", n), n > 100'000 ? kLargeCase : kSmallCase, [n](OpCaseRun& run) {
                           const auto values = run.random().normal(n);
                           const auto x = run.on_ops(DType::kF32, {n}, values);
                           const auto y = run.poisoned(DType::kF32, {n});
                           run.ops().copy(x.view(), y.view());
                           run.expect_equal(y.values(), values, "copy");
                           Buffer storage(run.ops().memory());
                           std::vector<float> back(values.size());
                           run.ops().download(run.ops().place(host(values, {n}), storage), back.data());
                           run.expect_equal(back, values, "place");
                         }});
  }
  return out;
}

void embed(OpCaseRun& run, int64_t rows, int64_t width) {
  constexpr int64_t kVocab = 50;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const auto values = run.random().normal(kVocab * width, 1.0, dtype);
    std::vector<int32_t> ids(static_cast<size_t>(rows));
    for (int32_t& id : ids) id = static_cast<int32_t>(run.random().draw(0, kVocab - 1));
    if (rows > 1) ids[0] = kVocab - 1;
    if (rows > 2) ids[1] = ids[2] = 0;
    const auto table = run.on_ops(dtype, {kVocab, width}, values);
    const auto got = run.poisoned(DType::kF32, {rows, width});
    std::vector<float> want(static_cast<size_t>(rows * width));
    run.ops().begin_step({ids, {}, {}});
    run.oracle().begin_step({ids, {}, {}});
    run.ops().embed(table.view(), got.view());
    run.oracle().embed(host(values, {kVocab, width}), host(want, {rows, width}));
    run.expect_equal(got.values(), want, fmt::format("a table in {}", to_string(dtype)));
  }
}

// The mean of squares is a sum of positive terms, so its relative error is the bound itself; the root halves it, the
// reciprocal root is off by 2 ulp, the products by one each.
double norm_tolerance(double exact, int64_t width, DType stored) {
  return stored_tolerance(exact, width, std::abs(exact), stored, 6 * kU32);
}

void rms_norm(OpCaseRun& run, int64_t rows, int64_t width) {
  const Shape shape{rows, width};
  for (const DType in : run.float_dtypes()) {
    for (const DType out : run.float_dtypes()) {
      const auto values = run.random().normal(rows * width, 3.0, in);
      const auto weights = run.random().normal(width);
      const auto x = run.on_ops(in, shape, values);
      const auto w = run.on_ops(DType::kF32, {width}, weights);
      const auto got = run.poisoned(out, shape);
      std::vector<float> want(values.size());
      run.ops().rms_norm(x.view(), w.view(), 1e-6F, got.view());
      run.oracle().rms_norm(host(values, shape), host(weights, {width}), 1e-6F, host(want, shape));
      const auto allowed = [&](size_t i) { return norm_tolerance(want[i], width, out); };
      const std::string what = fmt::format("{} -> {}", to_string(in), to_string(out));
      run.expect_close(got.values(), want, allowed, what);
      run.expect_equal(x.values(), values, what + ": its input");
      if (in != out) continue;
      run.ops().rms_norm(x.view(), w.view(), 1e-6F, x.view());
      run.expect_close(x.values(), want, allowed, what + " in place");
    }
  }
}

// Subtracting the mean cancels: its error is that of a sum of the magnitudes, which is then divided by the deviation
// (3 here, so a row's largest element is some 4 deviations).
void layer_norm(OpCaseRun& run, int64_t rows, int64_t width) {
  const Shape shape{rows, width};
  for (const DType in : run.float_dtypes()) {
    for (const DType out : run.float_dtypes()) {
      auto values = run.random().normal(rows * width, 3.0, in);
      for (float& v : values) v += 2.0F;  // rows have a mean
      const auto weights = run.random().normal(width);
      const auto x = run.on_ops(in, shape, values);
      const auto rounded = x.values();
      const auto w = run.on_ops(DType::kF32, {width}, weights);
      const auto got = run.poisoned(out, shape);
      std::vector<float> want(values.size());
      run.ops().layer_norm(x.view(), w.view(), 1e-5F, got.view());
      run.oracle().layer_norm(host(rounded, shape), host(weights, {width}), 1e-5F, host(want, shape));
      const auto allowed = [&](size_t i) {
        // One element has no deviation but that of epsilon.
        const double deviation = width == 1 ? 3e-3 : 0.5;
        const double mean_error = 8 * kU32 * std::abs(weights[i % static_cast<size_t>(width)]) * 5 / deviation;
        return norm_tolerance(want[i], width, out) + mean_error;
      };
      run.expect_close(got.values(), want, allowed, fmt::format("{} -> {}", to_string(in), to_string(out)));
    }
  }
}

void clamp(OpCaseRun& run, int64_t rows, int64_t width) {
  const DType act = run.activation();
  const auto values = run.random().normal(rows * width, 3.0, act);
  const auto x = run.on_ops(act, {rows, width}, values);
  auto want = values;
  run.ops().clamp(x.view(), 2.5F);
  run.oracle().clamp(host(want, {rows, width}), 2.5F);
  run.expect_equal(x.values(), want, "clamped");
}

void clamped_swiglu(OpCaseRun& run, int64_t rows, int64_t width) {
  for (const ops::SwigluParams& p : {ops::SwigluParams{4.0F, 1.702F, 1.0F}, ops::SwigluParams{0.0F, 1.0F, 0.0F},
                                     ops::SwigluParams{7.0F, 0.5F, -1.0F}}) {
    const Shape in{rows, 2 * width};
    const auto values = run.random().normal(in.numel(), 4.0);
    const auto gate_up = run.on_ops(DType::kF32, in, values);
    const auto got = run.poisoned(run.compute(), {rows, width});
    std::vector<float> want(static_cast<size_t>(rows * width));
    run.ops().clamped_swiglu(p, gate_up.view(), got.view());
    run.oracle().clamped_swiglu(p, host(values, in), host(want, {rows, width}));
    const auto allowed = [&](size_t i) {
      // exp is off by a few ulp, more for larger arguments; the sum u + shift cancels at worst.
      const double up = std::abs(values[i / static_cast<size_t>(width) * static_cast<size_t>(2 * width) +
                                        static_cast<size_t>(width) + i % static_cast<size_t>(width)]) +
                        1.0;
      const double slope = 16 + run.accuracy().exp_slope * 32;
      const double gate = std::abs(want[i]) / std::max(1e-3, std::abs(up - 1.0));
      return stored_tolerance(want[i], 1, std::abs(want[i]) + gate, run.compute(), slope * kU32) + 1e-6 * kU32;
    };
    run.expect_close(got.values(), want, allowed, fmt::format("limit {}, alpha {}", p.limit, p.alpha));
  }
}

void scale_by_sigmoid(OpCaseRun& run, int64_t rows, int64_t width) {
  const auto values = run.random().normal(rows * width);
  const auto logits = run.random().normal(rows, 3.0);
  const auto x = run.on_ops(DType::kF32, {rows, width}, values);
  const auto factors = run.on_ops(DType::kF32, {rows, 1}, logits);
  auto want = values;
  run.ops().scale_by_sigmoid(x.view(), factors.view());
  run.oracle().scale_by_sigmoid(host(want, {rows, width}), host(logits, {rows, 1}));
  const double error = (8 + run.accuracy().exp_slope * 16) * kU32;
  run.expect_close(
      x.values(), want, [&](size_t i) { return std::abs(want[i]) * error; }, "scaled");
}

void add_rms_norm(OpCaseRun& run, int64_t rows, int64_t width) {
  const Shape shape{rows, width};
  const DType act = run.activation();
  for (const bool with_delta : {false, true}) {
    auto values = run.random().normal(rows * width, 3.0);
    const auto deltas = run.random().normal(rows * width, 1.0, act);
    const auto weights = run.random().normal(width);
    const auto hidden = run.on_ops(DType::kF32, shape, values);
    const auto delta = run.on_ops(act, shape, deltas);
    const auto w = run.on_ops(DType::kF32, {width}, weights);
    const auto got = run.poisoned(act, shape);
    std::vector<float> want(values.size());
    run.ops().add_rms_norm(hidden.view(), with_delta ? delta.view() : TensorView(), w.view(), 1e-6F, got.view());
    run.oracle().add_rms_norm(host(values, shape), with_delta ? host(deltas, shape) : TensorView(),
                              host(weights, {width}), 1e-6F, host(want, shape));
    const std::string what = with_delta ? "with a delta" : "without a delta";
    run.expect_equal(hidden.values(), values, what + ": hidden");  // one addition, rounded once
    run.expect_close(
        got.values(), want, [&](size_t i) { return norm_tolerance(want[i], width, act); }, what);
  }
}

void to_compute(OpCaseRun& run, int64_t rows, int64_t width) {
  const int64_t n = rows * width;
  auto values = run.random().normal(n, 100.0);
  // Ties both ways, the largest that does not overflow, the smallest, one that does overflow, infinity, signed zero.
  const float special[] = {0x1.01p0F,       0x1.03p0F,  0x1.feffffp127F, 0x1p-126F,
                           0x1.fffffep127F, -0x1.01p0F, -0.0F,           std::numeric_limits<float>::infinity()};
  std::copy_n(special, std::min<int64_t>(n, std::ssize(special)), values.begin());
  const auto x = run.on_ops(DType::kF32, {rows, width}, values);
  const auto got = run.poisoned(run.compute(), {rows, width});
  const DeviceTensor want(run.oracle(), run.compute(), {rows, width}, values);  // rounded to nearest even
  run.ops().to_compute(x.view(), got.view());
  EXPECT_TRUE(got.bytes() == want.bytes()) << "not rounded to the nearest, or not to the even one of two";
}

void add(OpCaseRun& run, int64_t rows, int64_t width) {
  const Shape shape{rows, width};
  for (const DType dtype : run.float_dtypes()) {
    auto sums = run.random().normal(rows * width);
    const auto values = run.random().normal(rows * width, 1.0, dtype);
    const auto x = run.on_ops(DType::kF32, shape, sums);
    run.ops().add(x.view(), run.on_ops(dtype, shape, values).view());
    run.oracle().add(host(sums, shape), host(values, shape));
    run.expect_equal(x.values(), sums, fmt::format("f32 += {}", to_string(dtype)));  // rounded once
  }
}

void add_bias(OpCaseRun& run, int64_t rows, int64_t width) {
  const Shape shape{rows, width};
  for (const DType dtype : run.float_dtypes()) {
    auto values = run.random().normal(rows * width, 1.0, dtype);
    const auto bias = run.random().normal(width);
    const auto x = run.on_ops(dtype, shape, values);
    run.ops().add_bias(x.view(), run.on_ops(DType::kF32, {width}, bias).view());
    run.oracle().add_bias(host(values, shape), host(bias, {width}));
    run.expect_equal(x.values(), rounded(values, dtype), fmt::format("{} += f32", to_string(dtype)));  // rounded once
  }
}

void silu_mul(OpCaseRun& run, int64_t rows, int64_t width) {
  for (const DType dtype : run.float_dtypes()) {
    auto values = run.random().normal(rows * 2 * width, 4.0, dtype);
    const float extremes[] = {-200.0F, 200.0F, -88.0F, 88.0F, -20.0F, 0.0F};  // exp overflows f32 past 88.7
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      values[r * 2 * static_cast<size_t>(width)] = extremes[r % std::size(extremes)];
    }
    const auto x = run.on_ops(dtype, {rows, 2 * width}, values);
    const auto got = run.poisoned(run.compute(), {rows, width});
    std::vector<float> want(static_cast<size_t>(rows * width));
    run.ops().silu_mul(x.view(), got.view());
    run.oracle().silu_mul(host(values, {rows, 2 * width}), host(want, {rows, width}));
    const auto allowed = [&](size_t i) {
      const auto w = static_cast<size_t>(width);
      const double gate = values[i / w * 2 * w + i % w];
      // exp is off by 2 ulp and its slope; quotient and products by one each.
      const double input_error = (8 + run.accuracy().exp_slope * std::abs(gate)) * kU32;
      return stored_tolerance(want[i], 1, std::abs(want[i]), run.compute(), input_error);
    };
    run.expect_close(got.values(), want, allowed, fmt::format("from {}", to_string(dtype)));
  }
}

constexpr int64_t kSourceRows = 40;

void gather_rows(OpCaseRun& run, int64_t rows, int64_t width) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto values = run.random().normal(kSourceRows * width, 1.0, dtype);
    const auto x = run.on_ops(dtype, {kSourceRows, width}, values);
    std::vector<const std::byte*> sources;
    std::vector<float> want;
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t r = run.random().draw(0, kSourceRows - 1);
      sources.push_back(x.row(r));
      want.insert(want.end(), values.begin() + r * width, values.begin() + (r + 1) * width);
    }
    const auto got = run.poisoned(dtype, {rows, width});
    run.ops().gather_rows(sources, got.view());
    run.expect_equal(got.values(), want, std::string(to_string(dtype)));
  }
}

void scale_rows(OpCaseRun& run, int64_t rows, int64_t width) {
  auto values = run.random().normal(rows * width);
  const auto weight = run.random().normal(rows);
  const auto x = run.on_ops(DType::kF32, {rows, width}, values);
  run.ops().scale_rows(x.view(), weight);
  run.oracle().scale_rows(host(values, {rows, width}), weight);
  run.expect_equal(x.values(), values, "rows times weights");
}

Operation add_rows() {
  Operation out{"add_rows", {}};
  for (const int64_t width : {1, 9, 64, 129, 1000, 5120}) {
    for (const int64_t num_pairs : {0, 1, 39, 2000}) {
      const bool is_large = num_pairs * width > 1'000'000 && width > 1000;
      const auto body = [width, num_pairs](OpCaseRun& run) {
        auto want = run.random().normal(kSourceRows * width);
        const auto x = run.on_ops(DType::kF32, {kSourceRows, width}, want);
        std::vector<ops::RowPair> pairs;
        std::vector<ops::RowPair> oracle_pairs;
        // Long chains on few rows, of sources that stay as they are: the order of additions shows in the bits.
        for (int64_t i = 0; i < num_pairs; ++i) {
          const int64_t to = run.random().draw(0, 4);
          const int64_t from = run.random().draw(5, kSourceRows - 1);
          pairs.push_back({reinterpret_cast<float*>(x.row(to)), reinterpret_cast<const float*>(x.row(from))});
          oracle_pairs.push_back({want.data() + to * width, want.data() + from * width});
        }
        run.ops().add_rows(pairs, width);
        run.oracle().add_rows(oracle_pairs, width);
        run.expect_equal(x.values(), want, "sums");
      };
      out.cases.push_back({fmt::format("{} pairs of {}", num_pairs, width), is_large ? kLargeCase : kSmallCase, body});
    }
  }
  return out;
}

}  // namespace

std::vector<Operation> memory_operations() { return {memory_moves()}; }

std::vector<Operation> row_operations() {
  return {over_rows("embed", embed),
          over_rows("rms_norm", rms_norm),
          over_rows("add_rms_norm", add_rms_norm),
          over_rows("to_compute", to_compute),
          over_rows("add", add),
          over_rows("add_bias", add_bias),
          over_rows("silu_mul", silu_mul),
          over_rows("gather_rows", gather_rows),
          over_rows("scale_rows", scale_rows),
          add_rows(),
          over_rows("layer_norm", layer_norm),
          over_rows("clamp", clamp),
          over_rows("clamped_swiglu", clamped_swiglu),
          over_rows("scale_by_sigmoid", scale_by_sigmoid)};
}

}  // namespace eps::ops
