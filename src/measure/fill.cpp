#include "measure/fill.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"

namespace eps {

void fill_normal(MutableTensorView out, uint64_t seed) {
  SplitMix64 random(seed);
  const int64_t count = out.numel();
  switch (out.dtype()) {
    case DType::kF32: std::generate_n(out.as<float>(), count, [&] { return random.normal(); }); return;
    case DType::kBF16: std::generate_n(out.as<bf16>(), count, [&] { return to_bf16(random.normal()); }); return;
    case DType::kF16: std::generate_n(out.as<f16>(), count, [&] { return to_f16(random.normal()); }); return;
    default: EPS_CHECK(false, "cannot fill {}", to_string(out.dtype()));
  }
}

void fill_normal(const OpSet& ops, MutableTensorView out, uint64_t seed) {
  if (ops.memory().on_host()) return fill_normal(out, seed);
  Buffer host;
  const MutableTensorView values = host.view(out.dtype(), out.shape());
  fill_normal(values, seed);
  ops.upload(values.data(), out);
}

}  // namespace eps
