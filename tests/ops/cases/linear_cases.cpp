// Products: single weights, stacked parts, weights in f32, and the pools of experts.
#include <cmath>
#include <span>

#include "ops/cases/op_cases.h"
#include "support/brief.h"
#include "support/host_views.h"
#include "support/tolerance.h"

namespace eps::ops {

using namespace test;  // values, tensors and tolerances
namespace {

constexpr int64_t kTokens[] = {0, 1, 7, 8, 9, 31, 32, 33, 300};

std::vector<float> absolute(std::vector<float> v) {
  for (float& x : v) x = std::abs(x);
  return v;
}

std::unique_ptr<ops::LinearWeight> pack(const ops::OpSet& ops, const TensorView& part, ops::Precision precision,
                                        ops::WeightPool* pool = nullptr) {
  return ops.pack_linear(std::span(&part, 1), precision, pool);
}

// The oracle's x [m, k] · wᵀ [n, k].
std::vector<float> multiply(OpCaseRun& run, const std::vector<float>& x, const std::vector<float>& w, int64_t m,
                            int64_t n, int64_t k) {
  std::vector<float> y(static_cast<size_t>(m * n));
  const auto weight = pack(run.oracle(), host(w, {n, k}), ops::Precision::kCompute);
  const ops::LinearTask task{weight.get(), host(x, {m, k}), host(y, {m, n})};
  run.oracle().linear(std::span(&task, 1));
  return y;
}

// Products of rows and weights, and the sums of their absolute values, which bound what roundings lose.
struct Product {
  std::vector<float> value;
  std::vector<float> magnitude;
};
Product exact_product(OpCaseRun& run, const std::vector<float>& x, const std::vector<float>& w, int64_t m, int64_t n,
                      int64_t k) {
  return {multiply(run, x, w, m, n, k), multiply(run, absolute(x), absolute(w), m, n, k)};
}

// How far the elements of a weight may be off that the op set holds. Weights for its compute dtype are rounded to that,
// unless it computes in f32, which holds all of them. Those for f32 may be held as two bf16 numbers and are then off by
// the rounding of what the first one leaves.
double weight_error(const OpCaseRun& run, const ops::LinearWeight& weight, ops::Precision precision, DType stored) {
  const double u = unit_roundoff(DType::kBF16);
  if (stored == DType::kBF16 || run.compute() == DType::kF32) return 0;
  if (precision == ops::Precision::kCompute) return u;
  return weight.input_dtype() == DType::kBF16 ? u * u : 0;
}

void expect_product(OpCaseRun& run, const std::vector<float>& got, const Product& want, int64_t k, DType stored,
                    double error, const std::string& what) {
  run.expect_close(
      got, want.value, [&](size_t i) { return stored_tolerance(want.value[i], k, want.magnitude[i], stored, error); },
      what);
}

// One weight whose stored elements have `dtype`, with m rows.
void check_linear(OpCaseRun& run, int64_t m, int64_t n, int64_t k, DType dtype, ops::Precision precision) {
  const auto w = run.random().normal(n * k, 1.0, dtype);
  const auto weight = pack(run.ops(), host(w, {n, k}), precision);
  EXPECT_EQ(weight->out_features(), n);
  EXPECT_EQ(weight->in_features(), k);
  const DType input = weight->input_dtype();
  const auto x = run.random().normal(m * k, 1.0, input);
  const auto rows = run.on_ops(input, {m, k}, x);
  const Product want = exact_product(run, x, w, m, n, k);
  for (const DType stored : run.float_dtypes()) {
    if (precision == ops::Precision::kF32 && stored != DType::kF32) continue;  // what the gate wants
    const auto y = run.poisoned(stored, {m, n});
    const ops::LinearTask task{weight.get(), rows.view(), y.view()};
    run.ops().linear(std::span(&task, 1));
    expect_product(run, y.values(), want, k, stored, weight_error(run, *weight, precision, dtype),
                   fmt::format("into {}", to_string(stored)));
  }
}

Operation linear() {
  Operation out{"linear", {}};
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1},    {8, 8},    {17, 33},   {33, 7},     {64, 64},  {100, 40},
                                                {129, 65}, {256, 96}, {520, 136}, {576, 2048}, {768, 256}};
  for (const auto& [n, k] : shapes) {
    for (const int64_t m : kTokens) {
      const auto body = [m, n, k](OpCaseRun& run) {
        check_linear(run, m, n, k, DType::kBF16, ops::Precision::kCompute);
      };
      out.cases.push_back({fmt::format("[{}, {}] x [{}, {}]", m, k, n, k), CaseSize{m, m * n * k}, body});
    }
  }
  return out;
}

Operation linear_f32() {
  Operation out{"linear_f32", {}};
  const std::pair<int64_t, int64_t> shapes[] = {{8, 64}, {33, 7}, {32, 256}, {160, 2048}};
  for (const auto& [n, k] : shapes) {
    for (const DType dtype : {DType::kBF16, DType::kF32}) {  // what bf16 holds, and what it does not
      for (const int64_t m : kTokens) {
        const auto body = [m, n, k, dtype](OpCaseRun& run) { check_linear(run, m, n, k, dtype, ops::Precision::kF32); };
        out.cases.push_back(
            {fmt::format("[{}, {}] x [{}, {}] of {}", m, k, n, k, to_string(dtype)), CaseSize{m, m * n * k}, body});
      }
    }
  }
  return out;
}

Operation stacked_parts() {
  Operation out{"pack_linear_parts", {}};
  constexpr int64_t kK = 72;
  struct Parts {
    std::vector<int64_t> rows;
    DType dtype;
  };
  for (const Parts& parts : {Parts{{40, 40}, DType::kF32}, Parts{{40, 40}, DType::kBF16}, Parts{{40, 40}, DType::kF16},
                             Parts{{17, 3, 31}, DType::kBF16}, Parts{{1, 33, 1}, DType::kF32}}) {
    for (const int64_t m : {1, 3, 20, 33}) {
      const auto body = [parts, m](OpCaseRun& run) {
        int64_t n = 0;
        for (const int64_t rows : parts.rows) n += rows;
        const auto w = run.random().normal(n * kK, 1.0, parts.dtype);
        const DeviceTensor stored(run.oracle(), parts.dtype, {n, kK}, w);  // in host memory
        std::vector<TensorView> views;
        int64_t begin = 0;
        for (const int64_t rows : parts.rows) {
          views.push_back(TensorView(stored.view()).rows(begin, begin + rows));
          begin += rows;
        }
        const auto weight = run.ops().pack_linear(views, ops::Precision::kCompute);
        const DType input = weight->input_dtype();
        const auto x = run.random().normal(m * kK, 1.0, input);
        const auto rows = run.on_ops(input, {m, kK}, x);
        const auto y = run.poisoned(DType::kF32, {m, n});
        const ops::LinearTask task{weight.get(), rows.view(), y.view()};
        run.ops().linear(std::span(&task, 1));
        expect_product(run, y.values(), exact_product(run, x, w, m, n, kK), kK, DType::kF32,
                       weight_error(run, *weight, ops::Precision::kCompute, parts.dtype), "parts");
      };
      out.cases.push_back(
          {fmt::format("{} parts of {}, {} rows", parts.rows.size(), to_string(parts.dtype), m), kSmallCase, body});
    }
  }
  return out;
}

// A row has the same bits alone as with others.
Operation rows_alone() {
  Operation out{"linear_row_alone", {}};
  const std::pair<int64_t, int64_t> shapes[] = {{129, 256}, {33, 65}, {257, 130}};
  for (const auto& [n, k] : shapes) {
    for (const int64_t m : {2, 8, 33}) {
      const auto body = [m, n, k](OpCaseRun& run) {
        if (m > run.accuracy().invariant_rows) return;
        const auto w = run.random().normal(n * k, 1.0, DType::kBF16);
        const auto weight = pack(run.ops(), host(w, {n, k}), ops::Precision::kCompute);
        const DType input = weight->input_dtype();
        const auto rows = run.on_ops(input, {m, k}, run.random().normal(m * k, 1.0, input));
        const auto all = run.poisoned(DType::kF32, {m, n});
        const ops::LinearTask together{weight.get(), rows.view(), all.view()};
        run.ops().linear(std::span(&together, 1));
        const auto want = all.values();
        for (int64_t r = 0; r < m; ++r) {
          const auto y = run.poisoned(DType::kF32, {1, n});
          const ops::LinearTask alone{weight.get(), rows.view().rows(r, r + 1), y.view()};
          run.ops().linear(std::span(&alone, 1));
          run.expect_equal(y.values(), {want.begin() + r * n, want.begin() + (r + 1) * n}, fmt::format("row {}", r));
        }
      };
      out.cases.push_back({fmt::format("[{}, {}] x [{}, {}]", m, k, n, k), kSmallCase, body});
    }
  }
  return out;
}

// Rows for each expert; `skip_empty`: experts without rows get no task.
struct PoolRows {
  std::string name;
  std::vector<int64_t> rows;
  bool skip_empty = false;
  int64_t total() const {
    int64_t sum = 0;
    for (const int64_t r : rows) sum += r;
    return sum;
  }
};

std::vector<PoolRows> pool_rows() {
  RandomValues random(3);
  std::vector<PoolRows> out = {{"one expert", {5}},
                               {"two, one row each", {1, 1}},
                               {"none has rows", {0, 0, 0, 0}},
                               {"all rows in the last", {0, 0, 0, 300}},
                               {"all rows in the first", {129, 0, 0, 0}},
                               {"31, 32 and 33", {31, 32, 0, 33}},
                               {"tile edges", {127, 128, 129, 255, 256, 257, 0, 1}}};
  PoolRows ragged{"ragged", {}};
  for (int e = 0; e < 33; ++e) ragged.rows.push_back(random.draw(0, 2) == 0 ? 0 : random.draw(1, 40));
  out.push_back(ragged);
  PoolRows sparse{"160 experts, few busy", std::vector<int64_t>(160, 0), true};
  for (int i = 0; i < 12; ++i) sparse.rows[static_cast<size_t>(random.draw(0, 159))] += random.draw(1, 3);
  out.push_back(sparse);
  return out;
}

// The experts of one layer, packed into a pool where the op set wants one, and their rows one after the other.
struct Experts {
  std::unique_ptr<ops::WeightPool> pool;
  std::vector<std::vector<float>> w;
  std::vector<std::unique_ptr<ops::LinearWeight>> weights;
  DType input = DType::kF32;
  std::vector<float> x;

  Experts(OpCaseRun& run, const PoolRows& rows, int64_t n, int64_t k)
      : pool(run.ops().make_weight_pool(std::ssize(rows.rows), n, k)) {
    for (size_t e = 0; e < rows.rows.size(); ++e) {
      // Sums of deviation 1, as gate and up have them.
      w.push_back(run.random().normal(n * k, 1.0 / std::sqrt(static_cast<double>(k)), DType::kBF16));
      weights.push_back(pack(run.ops(), host(w.back(), {n, k}), ops::Precision::kCompute, pool.get()));
    }
    input = weights.front()->input_dtype();
    x = run.random().normal(rows.total() * k, 1.0, input);
  }
  std::vector<ops::LinearTask> tasks(const PoolRows& rows, const TensorView& from, const MutableTensorView& to) const {
    std::vector<ops::LinearTask> out;
    int64_t begin = 0;
    for (size_t e = 0; e < rows.rows.size(); ++e) {
      const int64_t end = begin + rows.rows[e];
      if (end > begin || !rows.skip_empty) {
        out.push_back({weights[e].get(), from.rows(begin, end), to.rows(begin, end)});
      }
      begin = end;
    }
    return out;
  }
  Product product(OpCaseRun& run, const PoolRows& rows, int64_t n, int64_t k) const {
    Product out;
    int64_t begin = 0;
    for (size_t e = 0; e < rows.rows.size(); ++e) {
      const int64_t end = begin + rows.rows[e];
      const Product part = exact_product(run, {x.begin() + begin * k, x.begin() + end * k}, w[e], end - begin, n, k);
      out.value.insert(out.value.end(), part.value.begin(), part.value.end());
      out.magnitude.insert(out.magnitude.end(), part.magnitude.begin(), part.magnitude.end());
      begin = end;
    }
    return out;
  }
};

// Widths: tile multiples, odd multiples of 8, and what no tensor-core kernel takes.
template <typename Body>
Operation over_pools(const std::string& name, const std::vector<std::pair<int64_t, int64_t>>& shapes,
                     const Body& body) {
  Operation out{name, {}};
  for (const PoolRows& rows : pool_rows()) {
    for (const auto& [n, k] : shapes) {
      const int64_t work = n * k * (rows.total() + std::ssize(rows.rows));
      out.cases.push_back({fmt::format("{}, weights of [{}, {}]", rows.name, n, k), CaseSize{0, 4 * work},
                           [body, rows, n, k](OpCaseRun& run) { body(run, rows, n, k); }});
    }
  }
  return out;
}

void pool_linear(OpCaseRun& run, const PoolRows& rows, int64_t n, int64_t k) {
  const Experts experts(run, rows, n, k);
  const auto x = run.on_ops(experts.input, {rows.total(), k}, experts.x);
  const Product want = experts.product(run, rows, n, k);
  for (const bool in_order : {true, false}) {  // the other way round they cannot go as one call
    if (!in_order && is_brief()) continue;
    for (const DType stored : run.float_dtypes()) {
      const auto y = run.poisoned(stored, {rows.total(), n});
      auto tasks = experts.tasks(rows, x.view(), y.view());
      if (!in_order) std::ranges::reverse(tasks);
      run.ops().linear(tasks);
      expect_product(run, y.values(), want, k, stored, 0,
                     fmt::format("into {}{}", to_string(stored), in_order ? "" : ", reversed"));
    }
  }
}

void pool_linear_silu_mul(OpCaseRun& run, const PoolRows& rows, int64_t n, int64_t k) {
  const int64_t inner = n / 2;
  const DType between = run.activation();  // of what gate_up holds, if it is written
  const Experts experts(run, rows, n, k);
  const auto x = run.on_ops(experts.input, {rows.total(), k}, experts.x);
  const auto gate_up = run.poisoned(between, {rows.total(), n});
  const auto act = run.poisoned(run.compute(), {rows.total(), inner});
  run.ops().linear_silu_mul(experts.tasks(rows, x.view(), gate_up.view()), gate_up.view(), act.view());
  gate_up.bytes();  // its guards
  const Product sums = experts.product(run, rows, n, k);
  std::vector<float> want(static_cast<size_t>(rows.total() * inner));
  run.oracle().silu_mul(host(sums.value, {rows.total(), n}), host(want, {rows.total(), inner}));
  const auto allowed = [&](size_t i) {
    const auto width = static_cast<size_t>(inner);
    const size_t gate_at = i / width * 2 * width + i % width;
    const size_t up_at = gate_at + width;
    const double gate = sums.value[gate_at];
    const double up = sums.value[up_at];
    const double gate_error = stored_tolerance(gate, k, sums.magnitude[gate_at], between);
    const double up_error = stored_tolerance(up, k, sums.magnitude[up_at], between);
    // silu is nowhere steeper than 1.1, and nowhere larger than its argument.
    const double error = 1.1 * gate_error * (std::abs(up) + up_error) + std::abs(gate) * up_error;
    const double exp_error = (8 + run.accuracy().exp_slope * std::abs(gate)) * 0x1p-24;
    return error + stored_tolerance(std::abs(want[i]) + error, 1, std::abs(want[i]) + error, run.compute(), exp_error);
  };
  run.expect_close(act.values(), want, allowed, "silu(gate) * up");
}

}  // namespace

std::vector<Operation> linear_operations() {
  return {linear(),
          linear_f32(),
          stacked_parts(),
          rows_alone(),
          over_pools("linear_of_a_pool", {{128, 256}, {256, 64}, {512, 128}, {40, 72}, {17, 33}}, pool_linear),
          over_pools("linear_silu_mul", {{256, 128}, {64, 72}, {34, 33}}, pool_linear_silu_mul)};
}

}  // namespace eps::ops
