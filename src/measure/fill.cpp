#include "measure/fill.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "base/stop.h"

namespace eps::measure {
namespace {

// Numbers between two looks at the token: some milliseconds.
constexpr int64_t kNumbersPerPoll = int64_t{1} << 20;

template <typename T, typename Convert>
void fill(MutableTensorView out, uint64_t seed, const StopToken& stop, const Convert& convert) {
  SplitMix64 random(seed);
  T* values = out.as<T>();
  for (int64_t begin = 0; begin < out.numel(); begin += kNumbersPerPoll) {
    throw_if_stopped(stop);
    const int64_t count = std::min(kNumbersPerPoll, out.numel() - begin);
    std::generate_n(values + begin, count, [&] { return convert(random.normal()); });
  }
}

}  // namespace

void fill_normal(MutableTensorView out, uint64_t seed, StopToken stop) {
  switch (out.dtype()) {
    case DType::kF32: return fill<float>(out, seed, stop, [](float v) { return v; });
    case DType::kBF16: return fill<bf16>(out, seed, stop, [](float v) { return to_bf16(v); });
    case DType::kF16: return fill<f16>(out, seed, stop, [](float v) { return to_f16(v); });
    default: EPS_CHECK(false, "cannot fill {}", to_string(out.dtype()));
  }
}

void fill_normal(const ops::OpSet& ops, MutableTensorView out, uint64_t seed, StopToken stop) {
  if (ops.memory().on_host()) return fill_normal(out, seed, stop);
  Buffer host;
  const MutableTensorView values = host.view(out.dtype(), out.shape());
  fill_normal(values, seed, stop);
  ops.upload(values.data(), out);
}

}  // namespace eps::measure
