#include "cli/bench_limit.h"

#include <random>

#include "base/clock.h"
#include "engine/factory.h"

namespace eps::cli {
namespace {

constexpr int64_t kSquareSize = 2048;
constexpr int64_t kLargeSquareSize = 4096;
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
  for (Square& square : squares_) {
    const auto edge = static_cast<double>(square.size);
    const double rate = 2 * edge * edge * edge / time(square);
    if (rate <= best_) continue;
    best_ = rate;
    best_size_ = square.size;
  }
}

std::string GemmLimit::description() const {
  return fmt::format("best of {} oneDNN products of {} x {} x {} in this run ({}, {} thread{})", num_samples_,
                     best_size_, best_size_, best_size_, to_string(dtype_), num_threads_, num_threads_ == 1 ? "" : "s");
}

}  // namespace eps::cli
