// Panel kernels in plain C++ (the compiler's generic 16-byte vectors). They round after the multiplication and again
// after the addition instead of using FMA, so their bits differ from those of the other instruction sets, but are
// equally independent of the other rows.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "ops/cpu/panel_gemm.h"

#define EPS_PANEL_TARGET
#include "ops/cpu/panel_gemm_kernel.h"

namespace eps::ops {
namespace {

struct Portable {
  typedef float Vec __attribute__((vector_size(16)));
  struct Pair {
    Vec low;
    Vec high;
  };
  static constexpr int64_t kWidth = 4;
  static constexpr int kAccumulators = 12;
  static constexpr int64_t kBlockRows = 96;

  static Vec zero() { return Vec{}; }
  static Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static Pair load_pair(const float* p) { return {load(p), load(p + kWidth)}; }
  static Pair load_pair(const bf16* p) {
    return {Vec{to_float(p[0]), to_float(p[2]), to_float(p[4]), to_float(p[6])},
            Vec{to_float(p[1]), to_float(p[3]), to_float(p[5]), to_float(p[7])}};
  }
  static Pair load_pair(const f16* p) {
    return {Vec{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])},
            Vec{to_float(p[4]), to_float(p[5]), to_float(p[6]), to_float(p[7])}};
  }
  static void store(float* p, Vec v) { std::memcpy(p, &v, sizeof(v)); }
  static Vec broadcast(const float* p) { return Vec{*p, *p, *p, *p}; }
  static Vec fma(Vec a, Vec b, Vec c) { return c + a * b; }
};

constexpr PanelKernels kKernels = make_panel_kernels<Portable>("portable");

}  // namespace

const PanelKernels& panel_kernels_portable() { return kKernels; }

}  // namespace eps::ops
