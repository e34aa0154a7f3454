// Panel kernels for AVX-512 (F, BW, VL, DQ): a 12 x 32 tile, 24 of the 32 vector registers.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "ops/cpu/panel_gemm.h"

#if defined(__x86_64__)

// GCC 12 warns about the deliberately undefined source operand in its own AVX-512 conversion intrinsics (PR105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#define EPS_PANEL_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define EPS_PANEL_INLINE EPS_PANEL_TARGET __attribute__((always_inline)) static inline
#include "ops/cpu/panel_gemm_kernel.h"

namespace eps::ops {
namespace {

struct Avx512 {
  using Vec = __m512;
  struct Pair {
    Vec low;
    Vec high;
  };
  static constexpr int64_t kWidth = 16;
  static constexpr int kAccumulators = 24;
  // 1.5 MiB of x for K = 2048, as for AVX2.
  static constexpr int64_t kBlockRows = 192;

  EPS_PANEL_INLINE Vec zero() { return _mm512_setzero_ps(); }
  EPS_PANEL_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  EPS_PANEL_INLINE Pair load_pair(const float* p) { return {_mm512_loadu_ps(p), _mm512_loadu_ps(p + kWidth)}; }
  EPS_PANEL_INLINE Pair load_pair(const bf16* p) {
    const __m512i both = _mm512_loadu_si512(p);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000U))))};
  }
  EPS_PANEL_INLINE Pair load_pair(const f16* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
            _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + kWidth)))};
  }
  EPS_PANEL_INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  EPS_PANEL_INLINE Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
  EPS_PANEL_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
};

constexpr PanelKernels kKernels = make_panel_kernels<Avx512>("avx512");

}  // namespace

const PanelKernels* panel_kernels_avx512() { return &kKernels; }

}  // namespace eps::ops

#else

namespace eps::ops {
const PanelKernels* panel_kernels_avx512() { return nullptr; }
}  // namespace eps::ops

#endif
