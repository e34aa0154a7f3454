// The grouped GEMM through its C interface: every tile shape against the host's product, and bit for bit against each
// other, as every element is summed in the same order in whichever tile it falls.
#include <dlfcn.h>

#include <filesystem>
#include <numeric>

#include "ops/cuda/grouped_gemm_c.h"
#include "ops/cuda_module.h"
#include "support/gpu_test.h"

namespace eps::ops {
namespace {

using test::unit_roundoff;

constexpr std::pair<int, int> kTiles[] = {{128, 256}, {128, 192}, {256, 128}, {224, 128}, {160, 128}, {128, 128}};

struct Load {
  const char* name;
  std::vector<int64_t> rows;
};

// A function of a library that is open already.
template <typename Function>
Function* open_function(const std::string& library, const char* name) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
  EPS_CHECK(handle != nullptr, "{} is not open", library);
  auto* function = reinterpret_cast<Function*>(dlsym(handle, name));
  EPS_CHECK(function != nullptr, "no {} in {}", name, library);
  return function;
}

std::string module_path() { return std::filesystem::read_symlink("/proc/self/exe").parent_path() / kCudaModuleFile; }

double silu(double v) { return v / (1 + std::exp(-v)); }

class CudaGroupedGemmTest : public test::GpuTest {
 protected:
  void SetUp() override {
    test::GpuTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    run_ = open_function<int(const EpsmoeGroupedGemm*)>(module_path(), "epsmoe_grouped_gemm");
    error_ = open_function<const char*()>(module_path(), "epsmoe_grouped_gemm_error");
    synchronize_ = open_function<int()>("libcuda.so.1", "cuCtxSynchronize");
  }

  // y of the whole load, NaN where nothing was written.
  std::vector<float> multiply(const test::DeviceTensor& x, const test::DeviceTensor& w, const Load& load,
                              EpsmoeGroupedGemm call) {
    std::vector<int32_t> offsets = {0};
    for (const int64_t rows : load.rows) offsets.push_back(offsets.back() + static_cast<int32_t>(rows));
    const auto on_gpu = on_device({std::ssize(offsets)}, offsets);
    const std::vector<int32_t> zero = {0};
    const auto workspace = on_device({1}, zero);
    const auto y = poisoned(DType::kBF16, {offsets.back(), call.silu_mul != 0 ? call.n / 2 : call.n});
    cuda().wait();  // the call below runs in another stream
    call.x = x.view().data();
    call.w = w.view().data();
    call.y = y.view().data();
    call.offsets = static_cast<const int32_t*>(on_gpu.view().data());
    call.workspace = const_cast<void*>(workspace.view().data());
    call.rows = load.rows.data();
    call.num_groups = static_cast<int32_t>(load.rows.size());
    for (int i = 0; i < 2; ++i)
      EXPECT_EQ(run_(&call), 0) << error_();  // the second call finds the workspace as the first left it
    EXPECT_EQ(synchronize_(), 0);
    EXPECT_EQ(workspace.ints(), zero);
    return y.values();
  }

  struct Dot {
    double value = 0;
    double magnitude = 0;
  };
  static Dot dot(const float* a, const float* b, int64_t k) {
    Dot out;
    for (int64_t i = 0; i < k; ++i) {
      const double term = static_cast<double>(a[i]) * b[i];
      out.value += term;
      out.magnitude += std::abs(term);
    }
    return out;
  }

  void expect_right(const std::vector<float>& got, const Load& load, const std::vector<float>& x,
                    const std::vector<float>& w, const EpsmoeGroupedGemm& call, const std::string& what) {
    const int64_t width = call.silu_mul != 0 ? call.n / 2 : call.n;
    std::vector<float> want;
    std::vector<double> allowed;
    const float* row = x.data();
    for (size_t group = 0; group < load.rows.size(); ++group) {
      const float* weight = w.data() + static_cast<int64_t>(group) * call.n * call.k;
      for (int64_t r = 0; r < load.rows[group]; ++r, row += call.k) {
        for (int64_t col = 0; col < width; ++col) {
          const Dot a = dot(row, weight + col * call.k, call.k);
          double value = a.value;
          double error = test::dot_tolerance(call.k, a.magnitude);
          if (call.silu_mul != 0) {
            const Dot up = dot(row, weight + (width + col) * call.k, call.k);
            value = silu(a.value) * up.value;
            // silu's slope is below 1.1; the fast exponential is good to 2^-18.
            error = 1.1 * error * std::abs(up.value) +
                    (std::abs(silu(a.value)) + 1.1 * error) * test::dot_tolerance(call.k, up.magnitude) +
                    std::abs(value) * 0x1p-18;
          }
          want.push_back(static_cast<float>(value));
          allowed.push_back(error + (std::abs(value) + error) * unit_roundoff(DType::kBF16));
        }
      }
    }
    expect_close(
        got, want, [&](size_t i) { return allowed[i]; }, what);
  }

  // Both epilogues by every tile, on all and on few SMs.
  void compare_tiles(const Load& load, int64_t n, int64_t k) {
    const int64_t total = std::accumulate(load.rows.begin(), load.rows.end(), int64_t{0});
    const auto x = random_.normal(total * k, 1.0, DType::kBF16);
    const auto w = random_.normal(std::ssize(load.rows) * n * k, 0.5, DType::kBF16);
    const auto x_gpu = on_device(DType::kBF16, {total, k}, x);
    const auto w_gpu = on_device(DType::kBF16, {std::ssize(load.rows) * n, k}, w);
    for (const int silu_mul : {0, 1}) {
      const std::string what = fmt::format("{}, [{}, {}]{}", load.name, n, k, silu_mul != 0 ? ", silu" : "");
      EpsmoeGroupedGemm call{};
      call.n = n;
      call.k = k;
      call.silu_mul = silu_mul;
      const auto chosen = multiply(x_gpu, w_gpu, load, call);
      expect_right(chosen, load, x, w, call, what);
      for (const auto& [tile_rows, tile_cols] : kTiles) {
        for (const int num_sms : {0, 1, 7}) {
          if (test::is_brief() && num_sms == 1) continue;
          call.tile_rows = tile_rows;
          call.tile_cols = tile_cols;
          call.num_sms = num_sms;
          expect_equal(multiply(x_gpu, w_gpu, load, call), chosen,
                       fmt::format("{}, tile {} x {}, {} SMs", what, tile_rows, tile_cols, num_sms));
        }
      }
    }
  }

  int (*run_)(const EpsmoeGroupedGemm*) = nullptr;
  const char* (*error_)() = nullptr;
  int (*synchronize_)() = nullptr;
};

TEST_F(CudaGroupedGemmTest, EveryTileGivesTheSameAndIsRight) {
  std::vector<std::pair<int64_t, int64_t>> shapes = {{48, 72}, {784, 136}};
  if (!test::is_brief()) shapes.insert(shapes.end(), {{512, 128}, {256, 64}, {1024, 8}});
  std::vector<Load> loads = {{"one row", {1}},
                             {"none", {0, 0, 0}},
                             {"all in the last", {0, 0, 0, 300}},
                             {"tile edges", {127, 128, 129, 255, 256, 257, 0, 1, 63, 64, 65}}};
  if (!test::is_brief()) loads.push_back({"uneven", {700, 0, 330, 64, 3, 192, 1, 1, 40, 520}});
  for (const Load& load : loads) {
    for (const auto& [n, k] : shapes) compare_tiles(load, n, k);
  }
}

TEST_F(CudaGroupedGemmTest, MoreStepsThanTheRingHas) { compare_tiles({"long sums", {0, 300, 1, 0, 65, 200}}, 48, 840); }

TEST_F(CudaGroupedGemmTest, MoreGroupsThanOneLaunchTakes) {
  if (test::is_brief()) GTEST_SKIP() << "the same kernel twice";
  Load load{"300 groups", {}};
  for (int64_t group = 0; group < 300; ++group) load.rows.push_back(group * 7 % 5);
  compare_tiles(load, 48, 72);
}

TEST_F(CudaGroupedGemmTest, UnsupportedSizesAreReported) {
  EpsmoeGroupedGemm call{};
  const int64_t rows = 1;
  call.rows = &rows;
  call.num_groups = 1;
  call.n = 17;
  call.k = 64;
  EXPECT_EQ(run_(&call), 1);
  EXPECT_NE(std::string(error_()).find("n 17, k 64"), std::string::npos) << error_();
  call.n = 16;
  call.tile_rows = 100;
  call.tile_cols = 128;
  EXPECT_EQ(run_(&call), 1);
  EXPECT_NE(std::string(error_()).find("100 rows, 128 columns"), std::string::npos) << error_();
}

}  // namespace
}  // namespace eps::ops
