#include "cli/bench_limit.h"

#include <random>

#include "base/clock.h"
#include "engine/factory.h"

namespace eps::cli {
namespace {

constexpr int64_t kSquareSize = 2048;
constexpr int64_t kLargeSquareSize = 4096;
constexpr int64_t kDeviceSquareSize = 8192;
constexpr int kDeviceCalls = 4;  // some milliseconds: waiting for the device does not show
// A team of threads starts and joins within some 50 us: below this time that is more than a per cent of a product.
constexpr double kShortSeconds = 5e-3;

// Values in [-1, 1): no denormals, no overflow.
void fill_random(MutableTensorView out) {
  std::minstd_rand rng(7);
  std::uniform_real_distribution<float> value(-1.0F, 1.0F);
  for (int64_t i = 0; i < out.numel(); ++i) {
    if (out.dtype() == DType::kBF16) {
      out.as<bf16>()[i] = to_bf16(value(rng));
    } else {
      out.as<float>()[i] = value(rng);
    }
  }
}

}  // namespace

GemmLimit::GemmLimit(DType dtype, int num_threads, int64_t size) : dtype_(dtype), num_threads_(num_threads) {
  add(size > 0 ? size : kSquareSize);
  time(squares_.front());
  if (size == 0 && time(squares_.front()) < kShortSeconds) {
    add(kLargeSquareSize);
    time(squares_.back());
  }
}

GemmLimit::GemmLimit(OpSet& ops, int num_threads, int64_t size)
    : dtype_(ops.compute_dtype()), num_threads_(num_threads) {
  if (ops.device() == nullptr) {
    *this = GemmLimit(ops.compute_dtype(), num_threads, size);
    return;
  }
  device_ops_ = &ops;
  add_device(size > 0 ? size : kDeviceSquareSize);
  time_device();
}

void GemmLimit::add_device(int64_t size) {
  Buffer host;
  const MutableTensorView values = host.view(dtype_, {size, size});
  fill_random(values);
  const TensorView part = values;
  device_square_.weight = device_ops_->pack_linear(std::span(&part, 1), Precision::kCompute);
  device_square_.x = Buffer(device_ops_->memory());
  device_square_.y = Buffer(device_ops_->memory());
  device_ops_->upload(values.data(), device_square_.x.view(dtype_, {size, size}));
  device_square_.y.view(device_ops_->activation_dtype(), {size, size});
  best_size_ = size;
}

double GemmLimit::time_device() {
  const Shape shape{best_size_, best_size_};
  const LinearTask task{device_square_.weight.get(), device_square_.x.view(dtype_, shape),
                        device_square_.y.view(device_ops_->activation_dtype(), shape)};
  device_ops_->wait();
  const int64_t begin = now_ns();
  for (int i = 0; i < kDeviceCalls; ++i) device_ops_->linear(std::span(&task, 1));
  device_ops_->wait();
  return static_cast<double>(now_ns() - begin) * 1e-9 / kDeviceCalls;
}

void GemmLimit::keep_best(int64_t size, double seconds) {
  const auto edge = static_cast<double>(size);
  const double rate = 2 * edge * edge * edge / seconds;
  if (rate <= best_) return;
  best_ = rate;
  best_size_ = size;
}

void GemmLimit::add(int64_t size) {
  Square square{size, nullptr, {}, {}};
  const MutableTensorView x = square.x.view(dtype_, {size, size});
  fill_random(x);
  square.y.view(DType::kF32, {size, size});
  square.gemm = make_gemm_baseline(x, num_threads_);
  squares_.push_back(std::move(square));
}

double GemmLimit::time(Square& square) {
  const int64_t begin = now_ns();
  square.gemm->run(square.size, square.x.data(), reinterpret_cast<float*>(square.y.data()));
  return static_cast<double>(now_ns() - begin) * 1e-9;
}

void GemmLimit::sample() {
  ++num_samples_;
  if (device_ops_ != nullptr) return keep_best(best_size_, time_device());
  for (Square& square : squares_) keep_best(square.size, time(square));
}

std::string GemmLimit::description() const {
  if (device_ops_ != nullptr) {
    return fmt::format("best of {} cuBLAS products of {} x {} x {} in this run ({})", num_samples_, best_size_,
                       best_size_, best_size_, to_string(dtype_));
  }
  return fmt::format("best of {} oneDNN products of {} x {} x {} in this run ({}, {} thread{})", num_samples_,
                     best_size_, best_size_, best_size_, to_string(dtype_), num_threads_, num_threads_ == 1 ? "" : "s");
}

}  // namespace eps::cli
