#include "ops/cpu/convert.h"

#include "base/cpu_features.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace eps::ops {
namespace {

#if defined(__x86_64__)

// Returns eight rounded results in 32-bit lanes; each is below 2^16.
__attribute__((target("avx2"))) __m256i round_eight(const float* from) {
  const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(from));
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
  const __m256i is_nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
  return _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), is_nan);
}

// Returns the number of elements that were converted, a multiple of 16.
__attribute__((target("avx2"))) int64_t convert_blocks_avx2(const float* from, bf16* to, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i packed = _mm256_packus_epi32(round_eight(from + i), round_eight(from + i + 8));
    // packus works separately on each 128-bit half, so the quarters must be reordered.
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm256_permute4x64_epi64(packed, 0xd8));
  }
  return i;
}

#endif

}  // namespace

void convert_f32_to_bf16(const float* from, bf16* to, int64_t count) {
  int64_t done = 0;
#if defined(__x86_64__)
  if (cpu_features().avx2) done = convert_blocks_avx2(from, to, count);
#endif
  for (int64_t i = done; i < count; ++i) to[i] = to_bf16(from[i]);
}

// Each conversion is a shift. The compiler's own vectorisation is as fast as memory, so no intrinsics are needed.
void convert_bf16_to_f32(const bf16* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}

}  // namespace eps::ops
