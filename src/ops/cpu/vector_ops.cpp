#include "ops/cpu/vector_ops.h"

#include <cstring>

// Each body is written once with compiler vectors and inlined into one set of functions per instruction set. A vector
// has eight lanes, as an AVX register has; for SSE and NEON the compiler splits it in two. What attention spends most
// of its time on beside products (exponentials, maxima) has sixteen lanes with AVX-512.
namespace eps::ops {
namespace {

#define EPS_INLINE inline __attribute__((always_inline))

using Lanes = float __attribute__((vector_size(32)));
constexpr int64_t kLanes = 8;

struct Eight {
  using Floats = Lanes;
  using Ints = int32_t __attribute__((vector_size(32)));
};
struct Sixteen {
  using Floats = float __attribute__((vector_size(64)));
  using Ints = int32_t __attribute__((vector_size(64)));
};

template <class V>
constexpr int64_t kLanesOf = static_cast<int64_t>(sizeof(V) / sizeof(float));

template <class V>
EPS_INLINE void load(V& v, const float* p) {
  std::memcpy(&v, p, sizeof(v));
}
template <class V>
EPS_INLINE void store(const V& v, float* p) {
  std::memcpy(p, &v, sizeof(v));
}

// Loads `count` elements; the remaining lanes are set to `fill`.
template <class V>
EPS_INLINE void load_tail(V& v, const float* p, int64_t count, float fill) {
  float lanes[kLanesOf<V>];
  store(V{} + fill, lanes);
  std::memcpy(lanes, p, static_cast<size_t>(count) * sizeof(float));
  load(v, lanes);
}
template <class V>
EPS_INLINE void store_tail(const V& v, float* p, int64_t count) {
  float lanes[kLanesOf<V>];
  store(v, lanes);
  std::memcpy(p, lanes, static_cast<size_t>(count) * sizeof(float));
}

// The two halves of sixteen lanes.
EPS_INLINE void split(const Sixteen::Floats& v, Lanes& low, Lanes& high) {
  float lanes[16];
  store(v, lanes);
  load(low, lanes);
  load(high, lanes + kLanes);
}

EPS_INLINE float sum_of(const Sixteen::Floats& v) {
  Lanes low;
  Lanes high;
  split(v, low, high);
  low += high;
  return ((low[0] + low[4]) + (low[1] + low[5])) + ((low[2] + low[6]) + (low[3] + low[7]));
}
EPS_INLINE float sum_of(const Lanes& v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

// exp in f32 with an error of at most 2 ulp in the clamped range: x = n ln2 + r with |r| <= ln2 / 2, a polynomial in r
// (Taylor terms up to r^7; the next one is below 2^-26), times 2^n by way of the exponent bits. Below -87.3, where the
// result would be subnormal, it is 1.2e-38, a difference that has no effect on softmax and silu.
template <class Width>
EPS_INLINE void exp_of(typename Width::Floats& out, const typename Width::Floats& in) {
  using V = typename Width::Floats;
  const V low = V{} - 87.33F;
  const V high = V{} + 88.37F;
  V x = in < low ? low : in;
  x = x > high ? high : x;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
  const V n = (x * 1.44269504F + kRound) - kRound;
  const V r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  V p = r * (1.0F / 5040.0F) + 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const typename Width::Ints exponent = (__builtin_convertvector(n, typename Width::Ints) + 127) << 23;
  V power;
  std::memcpy(&power, &exponent, sizeof(power));
  out = p * power;
}

EPS_INLINE void silu_mul_lanes(Lanes& out, const Lanes& gate, const Lanes& up) {
  Lanes e;
  exp_of<Eight>(e, -gate);
  out = gate / (e + 1.0F) * up;
}

EPS_INLINE void silu_mul_body(const float* gate, const float* up, float* out, int64_t n) {
  Lanes g;
  Lanes u;
  Lanes y;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    load(g, gate + i);
    load(u, up + i);
    silu_mul_lanes(y, g, u);
    store(y, out + i);
  }
  if (i < n) {
    load_tail(g, gate + i, n - i, 0.0F);
    load_tail(u, up + i, n - i, 0.0F);
    silu_mul_lanes(y, g, u);
    store_tail(y, out + i, n - i);
  }
}

EPS_INLINE void add_body(float* __restrict y, const float* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}
EPS_INLINE void scale_body(float* y, float a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] *= a;
}
EPS_INLINE void axpy_body(float* __restrict y, float a, const float* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}
// `out` may be the same as `x`. The operation is elementwise, so the overlap check that the compiler generates is
// sufficient.
EPS_INLINE void scale_by_body(const float* x, float a, const float* weight, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * a * weight[i];
}

EPS_INLINE float dot_body(const float* a, const float* b, int64_t n) {
  Lanes sum0{};
  Lanes sum1{};
  Lanes x;
  Lanes y;
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    load(x, a + i);
    load(y, b + i);
    sum0 += x * y;
    load(x, a + i + kLanes);
    load(y, b + i + kLanes);
    sum1 += x * y;
  }
  for (; i < n; i += kLanes) {
    const int64_t count = n - i < kLanes ? n - i : kLanes;
    load_tail(x, a + i, count, 0.0F);
    load_tail(y, b + i, count, 0.0F);
    sum0 += x * y;
  }
  sum0 += sum1;
  return sum_of(sum0);
}

// Two vectors of maxima, so that a comparison need not wait for the one before it.
template <class Width>
EPS_INLINE float max_body(const float* x, int64_t n) {
  using V = typename Width::Floats;
  constexpr int64_t kWide = kLanesOf<V>;
  V top0 = V{} + x[0];
  V top1 = top0;
  V v;
  int64_t i = 0;
  for (; i + 2 * kWide <= n; i += 2 * kWide) {
    load(v, x + i);
    top0 = v > top0 ? v : top0;
    load(v, x + i + kWide);
    top1 = v > top1 ? v : top1;
  }
  for (; i < n; i += kWide) {
    load_tail(v, x + i, n - i < kWide ? n - i : kWide, x[0]);
    top0 = v > top0 ? v : top0;
  }
  top0 = top1 > top0 ? top1 : top0;
  float lanes[kWide];
  store(top0, lanes);
  for (int64_t step = kWide / 2; step > 0; step /= 2) {
    for (int64_t j = 0; j < step; ++j) lanes[j] = lanes[j + step] > lanes[j] ? lanes[j + step] : lanes[j];
  }
  return lanes[0];
}

template <class Width>
EPS_INLINE float exp_sum_body(float* x, float top, int64_t n) {
  using V = typename Width::Floats;
  constexpr int64_t kWide = kLanesOf<V>;
  V sum{};
  V v;
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide) {
    load(v, x + i);
    v -= top;
    exp_of<Width>(v, v);
    store(v, x + i);
    sum += v;
  }
  if (i < n) {
    load_tail(v, x + i, n - i, 0.0F);
    v -= top;
    exp_of<Width>(v, v);
    store_tail(v, x + i, n - i);
    load_tail(v, x + i, n - i, 0.0F);
    sum += v;
  }
  return sum_of(sum);
}

template <class Width>
EPS_INLINE void softmax_body(float* x, int64_t n) {
  const float sum = exp_sum_body<Width>(x, max_body<Width>(x, n), n);
  scale_body(x, 1.0F / sum, n);
}

EPS_INLINE void clamped_swiglu_lanes(Lanes& out, Lanes gate, Lanes up, float limit, float alpha, float shift) {
  const Lanes high = Lanes{} + limit;
  gate = gate > high ? high : gate;
  up = up > high ? high : up;
  up = up < -high ? -high : up;
  Lanes e;
  exp_of<Eight>(e, gate * -alpha);
  out = gate / (e + 1.0F) * (up + shift);
}

EPS_INLINE void clamped_swiglu_body(const float* gate, const float* up, float limit, float alpha, float shift,
                                    float* out, int64_t n) {
  Lanes g;
  Lanes u;
  Lanes y;
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i < kLanes ? n - i : kLanes;
    load_tail(g, gate + i, count, 0.0F);
    load_tail(u, up + i, count, 0.0F);
    clamped_swiglu_lanes(y, g, u, limit, alpha, shift);
    store_tail(y, out + i, count);
  }
}

// A block of c = a · bᵀ: kM rows of a and kN rows of b, whose lanes are summed along k.
template <int kM, int kN>
EPS_INLINE void transposed_block(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t k, float* c,
                                 int64_t ldc) {
  Lanes sum[kM][kN] = {};
  Lanes x[kM];
  Lanes y[kN];
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    for (int r = 0; r < kM; ++r) load(x[r], a + r * lda + i);
    for (int j = 0; j < kN; ++j) load(y[j], b + j * ldb + i);
    for (int r = 0; r < kM; ++r) {
      for (int j = 0; j < kN; ++j) sum[r][j] += x[r] * y[j];
    }
  }
  if (i < k) {
    for (int r = 0; r < kM; ++r) load_tail(x[r], a + r * lda + i, k - i, 0.0F);
    for (int j = 0; j < kN; ++j) load_tail(y[j], b + j * ldb + i, k - i, 0.0F);
    for (int r = 0; r < kM; ++r) {
      for (int j = 0; j < kN; ++j) sum[r][j] += x[r] * y[j];
    }
  }
  for (int r = 0; r < kM; ++r) {
    for (int j = 0; j < kN; ++j) c[r * ldc + j] = sum_of(sum[r][j]);
  }
}

template <int kM>
EPS_INLINE void transposed_rows(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t n, int64_t k,
                                float* c, int64_t ldc) {
  int64_t j = 0;
  for (; j + 2 <= n; j += 2) transposed_block<kM, 2>(a, lda, b + j * ldb, ldb, k, c + j, ldc);
  if (j < n) transposed_block<kM, 1>(a, lda, b + j * ldb, ldb, k, c + j, ldc);
}

EPS_INLINE void multiply_transposed_body(const float* a, int64_t lda, int64_t m, const float* b, int64_t ldb, int64_t n,
                                         int64_t k, float* c, int64_t ldc) {
  int64_t r = 0;
  for (; r + 4 <= m; r += 4) transposed_rows<4>(a + r * lda, lda, b, ldb, n, k, c + r * ldc, ldc);
  for (; r < m; ++r) transposed_rows<1>(a + r * lda, lda, b, ldb, n, k, c + r * ldc, ldc);
}

// kM rows of c += a · b, in columns of kN vectors.
template <int kM, int kN>
EPS_INLINE void add_block(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t k, float* c, int64_t ldc) {
  Lanes sum[kM][kN];
  for (int r = 0; r < kM; ++r) {
    for (int j = 0; j < kN; ++j) load(sum[r][j], c + r * ldc + j * kLanes);
  }
  Lanes y[kN];
  for (int64_t i = 0; i < k; ++i) {
    for (int j = 0; j < kN; ++j) load(y[j], b + i * ldb + j * kLanes);
    for (int r = 0; r < kM; ++r) {
      for (int j = 0; j < kN; ++j) sum[r][j] += a[r * lda + i] * y[j];
    }
  }
  for (int r = 0; r < kM; ++r) {
    for (int j = 0; j < kN; ++j) store(sum[r][j], c + r * ldc + j * kLanes);
  }
}

template <int kM>
EPS_INLINE void add_rows_of(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t k, int64_t n, float* c,
                            int64_t ldc) {
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) add_block<kM, 2>(a, lda, b + j, ldb, k, c + j, ldc);
  for (; j + kLanes <= n; j += kLanes) add_block<kM, 1>(a, lda, b + j, ldb, k, c + j, ldc);
  for (; j < n; ++j) {
    for (int r = 0; r < kM; ++r) {
      for (int64_t i = 0; i < k; ++i) c[r * ldc + j] += a[r * lda + i] * b[i * ldb + j];
    }
  }
}

EPS_INLINE void multiply_add_body(const float* a, int64_t lda, int64_t m, const float* b, int64_t ldb, int64_t k,
                                  int64_t n, float* c, int64_t ldc) {
  int64_t r = 0;
  for (; r + 4 <= m; r += 4) add_rows_of<4>(a + r * lda, lda, b, ldb, k, n, c + r * ldc, ldc);
  for (; r < m; ++r) add_rows_of<1>(a + r * lda, lda, b, ldb, k, n, c + r * ldc, ldc);
}

// Defines one set of functions with the target attribute `TARGET`; WIDTH is that of exponentials and maxima.
#define EPS_DEFINE_VECTOR_OPS(NAME, WIDTH, TARGET)                                                                     \
  namespace NAME {                                                                                                     \
  TARGET void silu_mul(const float* g, const float* u, float* o, int64_t n) { silu_mul_body(g, u, o, n); }             \
  TARGET void add(float* y, const float* x, int64_t n) { add_body(y, x, n); }                                          \
  TARGET void scale(float* y, float a, int64_t n) { scale_body(y, a, n); }                                             \
  TARGET void axpy(float* y, float a, const float* x, int64_t n) { axpy_body(y, a, x, n); }                            \
  TARGET void scale_by(const float* x, float a, const float* w, float* o, int64_t n) { scale_by_body(x, a, w, o, n); } \
  TARGET float dot(const float* a, const float* b, int64_t n) { return dot_body(a, b, n); }                            \
  TARGET void softmax(float* x, int64_t n) { softmax_body<WIDTH>(x, n); }                                              \
  TARGET float max(const float* x, int64_t n) { return max_body<WIDTH>(x, n); }                                        \
  TARGET float exp_sum(float* x, float top, int64_t n) { return exp_sum_body<WIDTH>(x, top, n); }                      \
  TARGET void clamped_swiglu(const float* g, const float* u, float limit, float alpha, float shift, float* o,          \
                             int64_t n) {                                                                              \
    clamped_swiglu_body(g, u, limit, alpha, shift, o, n);                                                              \
  }                                                                                                                    \
  TARGET void multiply_transposed(const float* a, int64_t lda, int64_t m, const float* b, int64_t ldb, int64_t n,      \
                                  int64_t k, float* c, int64_t ldc) {                                                  \
    multiply_transposed_body(a, lda, m, b, ldb, n, k, c, ldc);                                                         \
  }                                                                                                                    \
  TARGET void multiply_add(const float* a, int64_t lda, int64_t m, const float* b, int64_t ldb, int64_t k, int64_t n,  \
                           float* c, int64_t ldc) {                                                                    \
    multiply_add_body(a, lda, m, b, ldb, k, n, c, ldc);                                                                \
  }                                                                                                                    \
  constexpr VectorOps kOps = {                                                                                         \
      silu_mul,    add, scale, axpy, scale_by, dot, softmax, max, exp_sum, clamped_swiglu, multiply_transposed,        \
      multiply_add};                                                                                                   \
  }

EPS_DEFINE_VECTOR_OPS(baseline, Eight, )
#if defined(__x86_64__)
EPS_DEFINE_VECTOR_OPS(avx2, Eight, __attribute__((target("avx2,fma"))))
EPS_DEFINE_VECTOR_OPS(avx512, Sixteen, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq"))))
#endif

}  // namespace

const VectorOps& choose_vector_ops([[maybe_unused]] const CpuFeatures& features) {
#if defined(__x86_64__)
  if (features.has_avx512_kernels()) return avx512::kOps;
  if (features.avx2 && features.fma) return avx2::kOps;
#endif
  return baseline::kOps;
}

}  // namespace eps::ops
