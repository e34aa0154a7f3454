#include "measure/gemm_limit.h"

#include <memory>
#include <random>

#include "base/clock.h"
#include "base/stop.h"
#include "engine/factory.h"

namespace eps::measure {
namespace {

constexpr int64_t kSquareSize = 2048;
constexpr int64_t kLargeSquareSize = 4096;
constexpr int64_t kDeviceSquareSize = 8192;
constexpr int kDeviceCalls = 4;  // take some milliseconds, so that the time for waiting is negligible
// Starting and joining a team of threads takes about 50 µs, which is more than one percent of a product shorter than
// this.
constexpr double kShortSeconds = 5e-3;

// Fills with values in [-1, 1), which neither become denormals nor overflow.
void fill_random(MutableTensorView out, const StopToken& stop) {
  std::minstd_rand rng(7);
  std::uniform_real_distribution<float> value(-1.0F, 1.0F);
  constexpr int64_t kValuesPerPoll = int64_t{1} << 20;  // some milliseconds
  for (int64_t i = 0; i < out.numel(); ++i) {
    if (i % kValuesPerPoll == 0) throw_if_stopped(stop);
    if (out.dtype() == DType::kBF16) {
      out.as<bf16>()[i] = to_bf16(value(rng));
    } else {
      out.as<float>()[i] = value(rng);
    }
  }
}

}  // namespace

GemmLimit::GemmLimit(ops::OpSet& ops, int num_threads, int64_t size, StopToken stop) : stop_(stop) {
  if (ops.device() != nullptr) {
    use_device(ops, size > 0 ? size : kDeviceSquareSize);
  } else {
    use_host(ops.compute_dtype(), num_threads, size);
  }
}

GemmLimit::GemmLimit(DType dtype, int num_threads, int64_t size, StopToken stop) : stop_(stop) {
  use_host(dtype, num_threads, size);
}

void GemmLimit::use_host(DType dtype, int num_threads, int64_t size) {
  library_ = "oneDNN";
  settings_ = fmt::format("{}, {} thread{}", to_string(dtype), num_threads, num_threads == 1 ? "" : "s");
  add_host(dtype, num_threads, size > 0 ? size : kSquareSize);
  squares_.front().seconds();
  if (size == 0 && squares_.front().seconds() < kShortSeconds) {
    add_host(dtype, num_threads, kLargeSquareSize);
    squares_.back().seconds();
  }
}

void GemmLimit::add_host(DType dtype, int num_threads, int64_t size) {
  struct Product {
    std::unique_ptr<ops::GemmBaseline> gemm;
    Buffer x, y;
  };
  const auto product = std::make_shared<Product>();
  const MutableTensorView x = product->x.view(dtype, {size, size});
  fill_random(x, stop_);
  float* y = product->y.view(DType::kF32, {size, size}).as<float>();
  product->gemm = engine::make_gemm_baseline(x, num_threads);
  squares_.push_back({size, [product, x, y, size] {
                        const int64_t begin = now_ns();
                        product->gemm->run(size, x.data(), y);
                        return static_cast<double>(now_ns() - begin) * 1e-9;
                      }});
}

void GemmLimit::use_device(ops::OpSet& ops, int64_t size) {
  library_ = "cuBLAS";
  settings_ = to_string(ops.compute_dtype());
  struct Product {
    std::unique_ptr<ops::LinearWeight> weight;
    Buffer x, y;
  };
  Buffer host;
  const MutableTensorView values = host.view(ops.compute_dtype(), {size, size});
  fill_random(values, stop_);
  const TensorView part = values;
  const auto product = std::make_shared<Product>();
  product->weight = ops.pack_linear(std::span(&part, 1), ops::Precision::kCompute);
  product->x = Buffer(ops.memory());
  product->y = Buffer(ops.memory());
  const MutableTensorView x = product->x.view(values.dtype(), values.shape());
  ops.upload(values.data(), x);
  const ops::LinearTask task{product->weight.get(), x, product->y.view(ops.activation_dtype(), values.shape())};
  squares_.push_back({size, [product, task, &ops] {
                        ops.wait();
                        const int64_t begin = now_ns();
                        for (int i = 0; i < kDeviceCalls; ++i) ops.linear(std::span(&task, 1));
                        ops.wait();
                        return static_cast<double>(now_ns() - begin) * 1e-9 / kDeviceCalls;
                      }});
  squares_.front().seconds();
}

void GemmLimit::sample() {
  ++num_samples_;
  for (const Square& square : squares_) {
    throw_if_stopped(stop_);
    const auto edge = static_cast<double>(square.size);
    const double rate = 2 * edge * edge * edge / square.seconds();
    if (rate <= best_) continue;
    best_ = rate;
    best_size_ = square.size;
  }
}

std::string GemmLimit::description() const {
  return fmt::format("best of {} {} products of {} x {} x {} in this run ({})", num_samples_, library_, best_size_,
                     best_size_, best_size_, settings_);
}

}  // namespace eps::measure
