// Device functions that kernels of all families share: vectors of elements, conversions, warp and block sums.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/op_params.h"

namespace eps::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kVector = 8;  // elements of a vector access: 16 bytes of bf16, twice 16 of f32

// Whether rows of `width` elements at these addresses can be read 16 bytes at a time. Null pointers are operands that
// are not used.
inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
template <typename... Pointers>
bool takes_vectors(int64_t width, Pointers... pointers) {
  return width % kVector == 0 && (is_aligned(pointers) && ...);
}

#ifdef __CUDACC__

// The address in the block's shared memory that PTX instructions expect.
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// --- elements ---

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(nv_bf16 x) { return __bfloat162float(x); }
template <typename T>
__device__ __forceinline__ T from_f32(float x);
template <>
__device__ __forceinline__ float from_f32<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ nv_bf16 from_f32<nv_bf16>(float x) {
  return __float2bfloat16_rn(x);
}

__device__ __forceinline__ float2 unpack_bf16(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000U)};
}
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ void unpack_bf16(const uint4& raw, float (&v)[kVector]) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack_bf16(words[i]);
    v[2 * i] = pair.x;
    v[2 * i + 1] = pair.y;
  }
}

// Loads kUnit elements from p: with 16-byte accesses for kVector elements, with a plain one for a single element.
__device__ __forceinline__ void load(const nv_bf16* p, float (&v)[kVector]) {
  unpack_bf16(*reinterpret_cast<const uint4*>(p), v);
}
__device__ __forceinline__ void load(const float* p, float (&v)[kVector]) {
  const auto* q = reinterpret_cast<const float4*>(p);
  const float4 a = q[0];
  const float4 b = q[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
  v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
template <typename T>
__device__ __forceinline__ void load(const T* p, float (&v)[1]) {
  v[0] = to_f32(*p);
}

__device__ __forceinline__ void store(nv_bf16* p, const float (&v)[kVector]) {
  *reinterpret_cast<uint4*>(p) = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                                  pack_bf16(v[6], v[7])};
}
__device__ __forceinline__ void store(float* p, const float (&v)[kVector]) {
  auto* q = reinterpret_cast<float4*>(p);
  q[0] = {v[0], v[1], v[2], v[3]};
  q[1] = {v[4], v[5], v[6], v[7]};
}
template <typename T>
__device__ __forceinline__ void store(T* p, const float (&v)[1]) {
  *p = from_f32<T>(v[0]);
}

__device__ __forceinline__ float silu(float x) { return x / (1.0F + __expf(-x)); }
__device__ __forceinline__ float sigmoid(float x) { return 1.0F / (1.0F + __expf(-x)); }

// The activation of an expert: silu(gate) * up, or a clamped one.
__device__ __forceinline__ float swiglu(const ops::SwigluParams& p, float gate, float up) {
  if (p.limit > 0.0F) {
    gate = fminf(gate, p.limit);
    up = fminf(fmaxf(up, -p.limit), p.limit);
  }
  return gate / (1.0F + __expf(-p.alpha * gate)) * (up + p.up_shift);
}

// --- order ---

// Maps a number to an integer with the same order; -0 and 0 have the same key.
__device__ __forceinline__ uint32_t order_key(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0F);
  return bits ^ (bits >> 31 != 0 ? ~0U : 0x80000000U);
}
__device__ __forceinline__ float key_value(uint32_t key) {
  return __uint_as_float(key >> 31 != 0 ? key ^ 0x80000000U : ~key);
}

// --- sums ---

// Returns the sum over the warp, bit for bit the same in every lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0U, x, offset);
  return x;
}

// Returns the sum over a block of up to 1024 threads (whole warps), bit for bit the same in every thread. Between
// two calls in a kernel, there must be a __syncthreads().
__device__ __forceinline__ float block_sum(float x) {
  __shared__ float partial[kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  x = warp_sum(x);
  if (lane == 0) partial[threadIdx.x / kWarp] = x;
  __syncthreads();
  return warp_sum(lane < warps ? partial[lane] : 0.0F);
}

#endif  // __CUDACC__

}  // namespace eps::cuda
