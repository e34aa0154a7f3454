#include <cuda_fp16.h>

#include "ops/cuda/kernels/rows/pointer_rows.h"

namespace eps::cuda {
namespace {

constexpr int kThreads = 256;

template <typename Unit>
__global__ void gather_kernel(const std::byte* const* sources, int64_t units, std::byte* out) {
  const int64_t row = blockIdx.x;
  const auto* from = reinterpret_cast<const Unit*>(sources[row]);
  auto* to = reinterpret_cast<Unit*>(out) + row * units;
  for (int64_t i = threadIdx.x; i < units; i += kThreads) to[i] = from[i];
}

__global__ void scale_kernel(float* rows, const float* weight, int64_t width) {
  const int64_t row = blockIdx.x;
  const float factor = weight[row];
  for (int64_t i = threadIdx.x; i < width; i += kThreads) rows[row * width + i] *= factor;
}

__global__ void add_pairs_kernel(const DeviceRowPair* pairs, int64_t n, int64_t width) {
  const int64_t column = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (column >= width) return;
  for (int64_t i = 0; i < n; ++i) pairs[i].dst[column] += pairs[i].src[column];
}

__device__ float widen(float x) { return x; }
__device__ float widen(__half x) { return __half2float(x); }

template <typename T>
__global__ void embed_kernel(const T* table, const int32_t* ids, int64_t width, float* out) {
  const int64_t row = blockIdx.x;
  const T* from = table + int64_t{ids[row]} * width;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) out[row * width + i] = widen(from[i]);
}

unsigned grid_of(int64_t n) { return static_cast<unsigned>(n); }

}  // namespace

void gather_pointers(const std::byte* const* sources, int64_t n, size_t row_bytes, std::byte* out,
                     cudaStream_t stream) {
  if (n == 0 || row_bytes == 0) return;
  const auto bytes = static_cast<int64_t>(row_bytes);
  if (bytes % 16 == 0) {
    gather_kernel<uint4><<<grid_of(n), kThreads, 0, stream>>>(sources, bytes / 16, out);
  } else if (bytes % 4 == 0) {
    gather_kernel<uint32_t><<<grid_of(n), kThreads, 0, stream>>>(sources, bytes / 4, out);
  } else {
    gather_kernel<uint8_t><<<grid_of(n), kThreads, 0, stream>>>(sources, bytes, out);
  }
  EPS_CUDA_LAUNCHED();
}

void scale_rows(float* rows, const float* weight, int64_t n, int64_t width, cudaStream_t stream) {
  if (n == 0) return;
  scale_kernel<<<grid_of(n), kThreads, 0, stream>>>(rows, weight, width);
  EPS_CUDA_LAUNCHED();
}

void add_pairs(const DeviceRowPair* pairs, int64_t n, int64_t width, cudaStream_t stream) {
  if (n == 0 || width == 0) return;
  add_pairs_kernel<<<grid_of(ceil_div(width, kThreads)), kThreads, 0, stream>>>(pairs, n, width);
  EPS_CUDA_LAUNCHED();
}

void embed_f32(const float* table, const int32_t* ids, int64_t n, int64_t width, float* out, cudaStream_t stream) {
  if (n == 0) return;
  embed_kernel<<<grid_of(n), kThreads, 0, stream>>>(table, ids, width, out);
  EPS_CUDA_LAUNCHED();
}

void embed_f16(const void* table, const int32_t* ids, int64_t n, int64_t width, float* out, cudaStream_t stream) {
  if (n == 0) return;
  embed_kernel<<<grid_of(n), kThreads, 0, stream>>>(static_cast<const __half*>(table), ids, width, out);
  EPS_CUDA_LAUNCHED();
}

}  // namespace eps::cuda
