// Packed CPU products: right within a derived bound, and the same bits for a row whatever shares its call.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/cpu_features.h"
#include "base/error.h"
#include "ops/cpu/amx_gemm.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/gemm_schedule.h"
#include "ops/cpu/onednn_baseline.h"
#include "ops/cpu/onednn_gemm.h"
#include "ops/cpu/packed_linear.h"
#include "ops/cpu/panel_gemm.h"
#include "support/cpu_arm.h"

namespace eps::ops {
namespace {

constexpr float kGuard = 12345.678F;

// A dense matrix in some dtype, beside its exact values as f32.
struct Matrix {
  int64_t rows;
  int64_t cols;
  DType dtype;
  std::vector<std::byte> bytes;
  std::vector<float> values;

  TensorView view() const { return {bytes.data(), dtype, Shape{rows, cols}}; }
};

Matrix make_matrix(int64_t rows, int64_t cols, DType dtype, std::vector<float> values) {
  Matrix out{rows, cols, dtype, std::vector<std::byte>(values.size() * size_of(dtype)), std::move(values)};
  for (size_t i = 0; i < out.values.size(); ++i) {
    std::byte* to = out.bytes.data() + i * size_of(dtype);
    if (dtype == DType::kBF16) {
      const bf16 v = to_bf16(out.values[i]);
      out.values[i] = to_float(v);
      std::memcpy(to, &v, sizeof(v));
    } else if (dtype == DType::kF16) {
      const f16 v = to_f16(out.values[i]);
      out.values[i] = to_float(v);
      std::memcpy(to, &v, sizeof(v));
    } else {
      std::memcpy(to, &out.values[i], sizeof(float));
    }
  }
  return out;
}

Matrix random_matrix(int64_t rows, int64_t cols, DType dtype, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (float& v : values) v = uniform(random);
  return make_matrix(rows, cols, dtype, std::move(values));
}

// Result rows with guards between and around them.
struct Result {
  int64_t m;
  int64_t n;
  int64_t ldy;
  std::vector<float> storage;

  Result(int64_t rows, int64_t cols, int64_t pad) : m(rows), n(cols), ldy(cols + pad) {
    storage.assign(static_cast<size_t>((rows + 2) * ldy), kGuard);
  }
  float* y() { return storage.data() + ldy; }
  const float* row(int64_t r) const { return storage.data() + (r + 1) * ldy; }
  bool guards_intact() const {
    for (size_t i = 0; i < storage.size(); ++i) {
      const int64_t r = static_cast<int64_t>(i) / ldy - 1;
      const bool inside = r >= 0 && r < m && static_cast<int64_t>(i) % ldy < n;
      if (!inside && storage[i] != kGuard) return false;
    }
    return true;
  }
};

using Arm = test::CpuArm;

class CpuGemm : public testing::TestWithParam<Arm> {
 protected:
  void SetUp() override {
    if (const std::string reason = why_not(GetParam()); !reason.empty()) {
      GTEST_SKIP() << "this CPU (" << cpu_features().brand << ") cannot run " << GetParam().name << ": " << reason;
    }
    choice_ = choose_cpu_engine(GetParam().engine == CpuEngine::kPanel ? DType::kF32 : DType::kBF16,
                                cap_isa(cpu_features(), GetParam().isa));
    ASSERT_EQ(choice_.engine, GetParam().engine);
    if (GetParam().engine == CpuEngine::kPanel) {
      ASSERT_EQ(choice_.isa, GetParam().name);
    }
  }
  Matrix make_x(int64_t m, int64_t k, unsigned seed) const { return random_matrix(m, k, choice_.compute, seed); }

  void run(const PackedLinear& weight, const Matrix& x, Result& result, int threads, int64_t first_row = 0) const {
    ThreadPool pool(threads);
    const std::byte* from = x.bytes.data() + static_cast<size_t>(first_row * x.cols) * size_of(x.dtype);
    const GemmTask task{&weight, from, x.cols, result.y(), result.ldy, result.m};
    run_gemms({&task, 1}, pool);
  }

  CpuEngineChoice choice_;
};
INSTANTIATE_TEST_SUITE_P(Arms, CpuGemm,
                         testing::Values(Arm{"portable", CpuIsa::kPortable, CpuEngine::kPanel},
                                         Arm{"avx2", CpuIsa::kAvx2, CpuEngine::kPanel},
                                         Arm{"avx512", CpuIsa::kAvx512, CpuEngine::kPanel},
                                         Arm{"amx", CpuIsa::kAmx, CpuEngine::kAmx},
                                         Arm{"onednn_bf16", CpuIsa::kAvx512Bf16, CpuEngine::kOneDnn}),
                         [](const auto& arm) { return std::string(arm.param.name); });

// Any order of K roundings, each at most eps/2 of a partial sum bounded by sum|x||w|, for products and for sums: 2K
// roundings bound what mul-then-add, FMA and oneDNN's blocked sums may lose.
double bound_of(const float* x, const float* w, int64_t k) {
  double magnitude = 0;
  for (int64_t i = 0; i < k; ++i) magnitude += std::fabs(static_cast<double>(x[i]) * w[i]);
  return static_cast<double>(k) * std::numeric_limits<float>::epsilon() * magnitude + std::numeric_limits<float>::min();
}

void expect_product(const Matrix& x, const std::vector<const Matrix*>& parts, const Result& result,
                    bool weights_to_bf16) {
  int64_t column = 0;
  for (const Matrix* part : parts) {
    std::vector<float> weights = part->values;
    if (weights_to_bf16)
      std::transform(weights.begin(), weights.end(), weights.begin(), [](float v) { return to_float(to_bf16(v)); });
    for (int64_t j = 0; j < part->rows; ++j, ++column) {
      const float* w = weights.data() + j * x.cols;
      for (int64_t r = 0; r < result.m; ++r) {
        const float* row = x.values.data() + r * x.cols;
        double want = 0;
        for (int64_t i = 0; i < x.cols; ++i) want += static_cast<double>(row[i]) * w[i];
        ASSERT_NEAR(result.row(r)[column], want, bound_of(row, w, x.cols))
            << "row " << r << " column " << column << " of m " << result.m << " k " << x.cols;
      }
    }
  }
}

TEST_P(CpuGemm, MatchesDoublePrecisionOverShapesAndDTypes) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const int64_t n : {1, 15, 16, 17, 33, 100}) {
      for (const int64_t k : {1, 7, 64, 129}) {
        const Matrix w = random_matrix(n, k, dtype, static_cast<unsigned>(n * 1000 + k));
        const TensorView view = w.view();
        const auto packed = pack_linear({&view, 1}, choice_);
        EXPECT_EQ(packed->out_features(), n);
        EXPECT_EQ(packed->in_features(), k);
        for (const int64_t m : {0, 1, 2, 3, 4, 5, 6, 7, 13, 25, 31, 32, 33, 100}) {
          const Matrix x = make_x(m, k, static_cast<unsigned>(m + 7));
          Result result(m, n, m % 2 == 0 ? 0 : 5);
          run(*packed, x, result, 1);
          ASSERT_TRUE(result.guards_intact()) << "m " << m << " n " << n << " k " << k;
          expect_product(x, {&w}, result, choice_.engine != CpuEngine::kPanel);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// More than one block over K, over rows, and a ragged last panel, all at once.
TEST_P(CpuGemm, MatchesDoublePrecisionAcrossBlocks) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Matrix w = random_matrix(37, 4101, dtype, 3);
    const TensorView view = w.view();
    const auto packed = pack_linear({&view, 1}, choice_);
    const Matrix x = make_x(211, 4101, 4);
    Result result(211, 37, 3);
    run(*packed, x, result, 2);
    EXPECT_TRUE(result.guards_intact());
    expect_product(x, {&w}, result, choice_.engine != CpuEngine::kPanel);
  }
}

TEST_P(CpuGemm, StacksPartsOfAnySizeAndDType) {
  const Matrix a = random_matrix(17, 65, DType::kBF16, 1);
  const Matrix b = random_matrix(3, 65, DType::kBF16, 2);
  const Matrix c = random_matrix(30, 65, DType::kF16, 3);
  const Matrix d = random_matrix(1, 65, DType::kF32, 4);
  for (const std::vector<const Matrix*>& parts :
       std::vector<std::vector<const Matrix*>>{{&a, &b}, {&b, &a, &c}, {&d, &c, &b, &a}}) {
    std::vector<TensorView> views;
    int64_t n = 0;
    for (const Matrix* part : parts) {
      views.push_back(part->view());
      n += part->rows;
    }
    const auto packed = pack_linear(views, choice_);
    EXPECT_EQ(packed->out_features(), n);
    for (const int64_t m : {1, 40}) {
      const Matrix x = make_x(m, 65, 9);
      Result result(m, n, 2);
      run(*packed, x, result, 1);
      EXPECT_TRUE(result.guards_intact());
      expect_product(x, parts, result, choice_.engine != CpuEngine::kPanel);
    }
  }
}

// Parts that end within a panel, a ragged last panel and last step of K, and enough panels for several tasks.
TEST_P(CpuGemm, PackingWithThreadsGivesTheSameWeight) {
  const Matrix a = random_matrix(1003, 1409, DType::kBF16, 1);
  const Matrix b = random_matrix(510, 1409, DType::kF32, 2);
  const Matrix c = random_matrix(9, 1409, DType::kF16, 3);
  const Matrix x = make_x(5, 1409, 4);
  for (const auto& parts : std::vector<std::vector<TensorView>>{{a.view()}, {a.view(), b.view(), c.view()}}) {
    const auto alone = pack_linear(parts, choice_);
    Result want(5, alone->out_features(), 0);
    run(*alone, x, want, 1);
    for (const int threads : {1, 2, 5}) {
      ThreadPool pool(threads);
      const auto packed = pack_linear(parts, choice_, &pool);
      EXPECT_EQ(packed->num_bytes(), alone->num_bytes());
      Result result(5, packed->out_features(), 0);
      run(*packed, x, result, 1);
      EXPECT_EQ(result.storage, want.storage) << threads << " threads";
    }
  }
}

// Safetensors guarantees no alignment.
TEST_P(CpuGemm, PartsMayLieAtAnyAddress) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Matrix w = random_matrix(40, 70, dtype, 5);
    const TensorView aligned = w.view();
    std::vector<std::byte> moved(w.bytes.size() + 1);
    std::copy(w.bytes.begin(), w.bytes.end(), moved.begin() + 1);
    const TensorView odd(moved.data() + 1, dtype, aligned.shape());
    const Matrix x = make_x(3, 70, 6);
    Result want(3, 40, 0);
    Result got(3, 40, 0);
    run(*pack_linear({&aligned, 1}, choice_), x, want, 1);
    if (choice_.engine != CpuEngine::kPanel && dtype != DType::kBF16) continue;  // converted element by element
    run(*pack_linear({&odd, 1}, choice_), x, got, 1);
    EXPECT_EQ(got.storage, want.storage) << to_string(dtype);
  }
}

TEST_P(CpuGemm, RowKeepsItsBitsWhateverSharesTheCall) {
  struct Case {
    int64_t n, k, m;
    DType dtype;
  };
  std::vector<Case> cases = {{100, 129, 33, DType::kF32},    // every number of rows up to several tiles
                             {257, 130, 220, DType::kBF16},  // several blocks of rows, slices of columns
                             {33, 2100, 27, DType::kF16}};   // several blocks of K
  // oneDNN's own blocking is not ours to know: larger shapes, like a model's.
  if (choice_.engine != CpuEngine::kPanel) {
    cases.push_back({1100, 768, 270, DType::kBF16});
    cases.push_back({512, 2048, 270, DType::kBF16});
    cases.push_back({576, 1408, 40, DType::kBF16});
  }
  for (const Case& c : cases) {
    const Matrix w = random_matrix(c.n, c.k, c.dtype, 21);
    const TensorView view = w.view();
    const auto packed = pack_linear({&view, 1}, choice_);
    const Matrix x = make_x(c.m, c.k, 22);
    std::vector<Result> alone(static_cast<size_t>(c.m), Result(1, c.n, 0));
    for (int64_t r = 0; r < c.m; ++r) run(*packed, x, alone[static_cast<size_t>(r)], 1, r);
    // Ascending, so that a failure names the smallest number of rows at which bits change.
    for (int64_t m = 2; m <= c.m; m += m < 40 ? 1 : 45) {
      for (const int threads : {1, 2, 3}) {
        if (threads > 1 && m % 3 != 0) continue;
        for (const int64_t first : {int64_t{0}, c.m - m}) {
          Result result(m, c.n, 4);
          run(*packed, x, result, threads, first);
          ASSERT_TRUE(result.guards_intact());
          for (int64_t r = 0; r < m; ++r) {
            const float* want = alone[static_cast<size_t>(first + r)].row(0);
            ASSERT_EQ(std::memcmp(result.row(r), want, static_cast<size_t>(c.n) * sizeof(float)), 0)
                << "smallest m whose rows differ from single rows: " << m << " (row " << r << " of " << c.m
                << ", first " << first << ", n " << c.n << ", k " << c.k << ", " << threads << " threads, "
                << choice_.isa << ")";
          }
        }
      }
    }
  }
}

TEST_P(CpuGemm, GroupedCallEqualsSingleCallsBitwise) {
  constexpr int64_t kK = 130;
  const int64_t rows[] = {0, 1, 64, 0, 7, 200, 3};
  const int64_t columns[] = {40, 40, 40, 33, 600, 40, 40};
  std::vector<std::unique_ptr<PackedLinear>> weights;
  std::vector<Matrix> inputs;
  std::vector<Result> grouped;
  std::vector<Result> single;
  for (size_t i = 0; i < std::size(rows); ++i) {
    const Matrix w = random_matrix(columns[i], kK, DType::kBF16, static_cast<unsigned>(i));
    const TensorView view = w.view();
    weights.push_back(pack_linear({&view, 1}, choice_));
    inputs.push_back(make_x(rows[i], kK, static_cast<unsigned>(50 + i)));
    grouped.emplace_back(rows[i], columns[i], 1);
    single.emplace_back(rows[i], columns[i], 1);
    run(*weights[i], inputs[i], single[i], 1);
  }
  for (const int threads : {1, 2, 3}) {
    std::vector<GemmTask> tasks;
    for (size_t i = 0; i < std::size(rows); ++i) {
      std::fill(grouped[i].storage.begin(), grouped[i].storage.end(), kGuard);
      tasks.push_back({weights[i].get(), inputs[i].bytes.data(), kK, grouped[i].y(), grouped[i].ldy, rows[i]});
    }
    ThreadPool pool(threads);
    run_gemms(tasks, pool);
    for (size_t i = 0; i < std::size(rows); ++i) EXPECT_EQ(grouped[i].storage, single[i].storage) << "task " << i;
  }
}

TEST_P(CpuGemm, RowsOfXMayLieApart) {
  const Matrix w = random_matrix(50, 64, DType::kBF16, 1);
  const TensorView view = w.view();
  const auto packed = pack_linear({&view, 1}, choice_);
  for (const int64_t m : {3, 16, 40}) {
    const Matrix wide = make_x(m, 96, 2);  // rows of 64 with 32 others behind each
    std::vector<float> kept;
    for (int64_t r = 0; r < m; ++r) {
      kept.insert(kept.end(), wide.values.begin() + r * 96, wide.values.begin() + r * 96 + 64);
    }
    const Matrix dense = make_matrix(m, 64, choice_.compute, kept);
    Result apart(m, 50, 2);
    Result together(m, 50, 2);
    run(*packed, dense, together, 1);
    ThreadPool pool(1);
    const GemmTask task{packed.get(), wide.bytes.data(), 96, apart.y(), apart.ldy, m};
    run_gemms({&task, 1}, pool);
    EXPECT_EQ(apart.storage, together.storage) << "m " << m;
  }
}

TEST_P(CpuGemm, OneRowsNanStaysInItsRow) {
  const Matrix w = random_matrix(40, 64, DType::kBF16, 1);
  const TensorView view = w.view();
  const auto packed = pack_linear({&view, 1}, choice_);
  Matrix x = make_x(30, 64, 2);
  std::vector<float> values = x.values;
  values[11 * 64 + 5] = std::numeric_limits<float>::quiet_NaN();
  x = make_matrix(30, 64, choice_.compute, values);
  Result result(30, 40, 0);
  run(*packed, x, result, 1);
  for (int64_t r = 0; r < 30; ++r) {
    for (int64_t j = 0; j < 40; ++j) ASSERT_EQ(std::isnan(result.row(r)[j]), r == 11) << r << ' ' << j;
  }
}

TEST_P(CpuGemm, RefusesWhatDoesNotFit) {
  const Matrix a = random_matrix(4, 8, DType::kF32, 1);
  const Matrix b = random_matrix(4, 9, DType::kF32, 1);
  const int32_t integers[4] = {};
  EXPECT_THROW(pack_linear({}, choice_), Error);
  EXPECT_THROW(pack_linear(std::vector<TensorView>{a.view(), b.view()}, choice_), Error);
  EXPECT_THROW(pack_linear(std::vector<TensorView>{TensorView(integers, DType::kI32, Shape{2, 2})}, choice_), Error);
  const auto packed = pack_linear(std::vector<TensorView>{a.view()}, choice_);
  const Matrix x = make_x(2, 8, 1);
  float y[16];
  ThreadPool pool(1);
  for (const GemmTask& task :
       {GemmTask{packed.get(), x.bytes.data(), 7, y, 4, 2}, GemmTask{packed.get(), x.bytes.data(), 8, y, 3, 2},
        GemmTask{packed.get(), x.bytes.data(), 8, y, 4, -1}, GemmTask{nullptr, x.bytes.data(), 8, y, 4, 2}}) {
    EXPECT_THROW(run_gemms({&task, 1}, pool), Error);
  }
}

TEST(PackedPanels, KeepTheStoredDTypesSize) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Matrix w = random_matrix(64, 32, dtype, 1);
    const TensorView view = w.view();
    EXPECT_EQ(pack_linear({&view, 1}, choose_cpu_engine(DType::kF32))->num_bytes(), 64 * 32 * size_of(dtype));
  }
}

// Element by element, since the layout must be right on CPUs that only compile the kernels.
TEST(PackAmxPanel, PutsPairsAlongKWhereTheTilesReadThem) {
  for (const int64_t k : {1, 2, 31, 32, 33, 64, 95, 130}) {
    const Matrix w = random_matrix(kAmxPanelColumns, k, DType::kBF16, static_cast<unsigned>(k));
    const auto* from = reinterpret_cast<const bf16*>(w.bytes.data());
    const std::byte* rows[kAmxPanelColumns];
    for (int64_t c = 0; c < kAmxPanelColumns; ++c) rows[c] = w.bytes.data() + c * k * 2;
    std::vector<bf16> panel(static_cast<size_t>(amx_panel_elements(k)) + 1, bf16{0x1234});
    pack_amx_panel(rows, k, panel.data());
    std::vector<bf16> want(panel.size(), bf16{0});
    want.back() = bf16{0x1234};
    for (int64_t c = 0; c < kAmxPanelColumns; ++c) {
      for (int64_t i = 0; i < k; ++i) {
        const int64_t tile = i / 32 * 2 + c / 16;
        want[static_cast<size_t>(tile * 512 + i % 32 / 2 * 32 + c % 16 * 2 + i % 2)] = from[c * k + i];
      }
    }
    for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(panel[i].bits, want[i].bits) << "k " << k << ", at " << i;
  }
}

TEST(CutGemms, CoverEveryElementOnce) {
  const CpuEngineChoice choice = choose_cpu_engine(DType::kF32);
  std::vector<std::unique_ptr<PackedLinear>> weights;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 3}, {2000, 700}, {512, 64}, {97, 1000}}) {
    const Matrix w = random_matrix(n, k, DType::kBF16, 1);
    const TensorView view = w.view();
    weights.push_back(pack_linear({&view, 1}, choice));
  }
  for (const int64_t m : {0, 1, 5, 200, 1000}) {
    std::vector<GemmTask> tasks;
    for (const auto& weight : weights) tasks.push_back({weight.get(), nullptr, 0, nullptr, 0, m});
    tasks[1].m = m / 2;
    for (const int threads : {1, 2, 16, 128}) {
      std::vector<std::vector<int>> hits;
      for (const GemmTask& task : tasks)
        hits.emplace_back(static_cast<size_t>(task.m * task.weight->out_features()), 0);
      for (const GemmPiece& piece : cut_gemms(tasks, threads)) {
        ASSERT_LT(piece.row_begin, piece.row_end);
        ASSERT_LT(piece.n_begin, piece.n_end);
        const GemmTask& task = tasks[static_cast<size_t>(piece.task)];
        EXPECT_EQ(piece.n_begin % task.weight->grain().columns, 0);
        EXPECT_LE(piece.row_end - piece.row_begin, task.weight->grain().rows);
        for (int64_t r = piece.row_begin; r < piece.row_end; ++r) {
          for (int64_t j = piece.n_begin; j < piece.n_end; ++j) {
            ++hits[static_cast<size_t>(piece.task)][static_cast<size_t>(r * task.weight->out_features() + j)];
          }
        }
      }
      for (const auto& task_hits : hits) {
        EXPECT_TRUE(std::all_of(task_hits.begin(), task_hits.end(), [](int count) { return count == 1; }));
      }
    }
  }
}

TEST(ChooseCpuEngine, FollowsTheCpuAndTheWish) {
  CpuFeatures cpu;
  EXPECT_EQ(choose_cpu_engine(std::nullopt, cpu).isa, "portable");
  cpu.avx2 = cpu.fma = cpu.f16c = true;
  EXPECT_EQ(choose_cpu_engine(std::nullopt, cpu).isa, "avx2");
  EXPECT_EQ(choose_cpu_engine(std::nullopt, cpu).compute, DType::kF32);
  EXPECT_THROW(choose_cpu_engine(DType::kBF16, cpu), Error);
  EXPECT_THROW(choose_cpu_engine(DType::kF16, cpu), Error);
  cpu.avx512f = cpu.avx512bw = cpu.avx512vl = cpu.avx512dq = true;
  EXPECT_EQ(choose_cpu_engine(std::nullopt, cpu).isa, "avx512");
  EXPECT_THROW(choose_cpu_engine(DType::kBF16, cpu), Error);
  cpu.avx512_bf16 = true;
  EXPECT_EQ(choose_cpu_engine(std::nullopt, cpu).isa, "avx512");
  EXPECT_EQ(choose_cpu_engine(DType::kBF16, cpu).isa, "avx512_bf16");
  cpu.amx_tile = cpu.amx_bf16 = true;
  EXPECT_EQ(choose_cpu_engine(std::nullopt, cpu).isa, "amx_bf16");
  EXPECT_EQ(choose_cpu_engine(std::nullopt, cpu).compute, DType::kBF16);
  EXPECT_EQ(choose_cpu_engine(DType::kF32, cpu).isa, "avx512");
  EXPECT_FALSE(choose_cpu_engine(DType::kF32, cpu).reason.empty());
}

TEST(ChooseCpuEngine, SaysWhatIsMissing) {
  try {
    choose_cpu_engine(DType::kBF16, CpuFeatures{});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("bf16"), std::string::npos) << e.what();
  }
}

TEST(OneDnnRowBucket, NextMultipleOfSixteen) {
  const std::pair<int64_t, int64_t> cases[] = {{1, 16}, {16, 16}, {17, 32}, {33, 48}, {255, 256}, {256, 256}};
  for (const auto& [m, bucket] : cases) EXPECT_EQ(onednn_row_bucket(m), bucket) << m;
  EXPECT_THROW(onednn_row_bucket(0), Error);
  EXPECT_THROW(onednn_row_bucket(257), Error);
}

TEST(OneDnnBaseline, AgreesWithThePanelKernels) {
  const Matrix w = random_matrix(70, 129, DType::kF32, 1);
  const Matrix x = random_matrix(33, 129, DType::kF32, 2);
  OneDnnBaseline baseline(DType::kF32, w.view(), 1);
  for (const int64_t m : {1, 33, 5, 33}) {
    Result result(m, 70, 0);
    baseline.run(m, x.bytes.data(), result.y());
    EXPECT_TRUE(result.guards_intact());
    expect_product(x, {&w}, result, false);
  }
}

TEST(ConvertBf16, RoundsEveryKindOfValueAsTheScalarDoes) {
  std::vector<float> values = {0.0F,
                               -0.0F,
                               1.0F,
                               -1.0F,
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::quiet_NaN(),
                               std::numeric_limits<float>::max(),
                               std::numeric_limits<float>::denorm_min()};
  // Both sides of, and exactly on, the middle between two bf16 values, odd and even; NaNs with only low bits set.
  for (const uint32_t bits : {0x3f807fffU, 0x3f808000U, 0x3f808001U, 0x3f818000U, 0x3f817fffU, 0x7f7f8000U, 0x7f800001U,
                              0xff800001U, 0x7fffffffU, 0xffffffffU, 0x00008000U, 0x80018000U}) {
    values.push_back(std::bit_cast<float>(bits));
  }
  std::mt19937 random(5);
  while (values.size() < 5003) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  for (const size_t count : {size_t{0}, size_t{1}, size_t{15}, size_t{16}, size_t{17}, size_t{31}, values.size()}) {
    std::vector<bf16> got(count + 1, bf16{0x1234});
    convert_f32_to_bf16(values.data(), got.data(), static_cast<int64_t>(count));
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(got[i].bits, to_bf16(values[i]).bits) << values[i];
    EXPECT_EQ(got[count].bits, 0x1234);
    std::vector<float> back(count + 1, kGuard);
    convert_bf16_to_f32(got.data(), back.data(), static_cast<int64_t>(count));
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), uint32_t{got[i].bits} << 16);
    EXPECT_EQ(back[count], kGuard);
  }
}

}  // namespace
}  // namespace eps::ops
