#include "ops/cuda/kernels/rows/elementwise.h"

#include <cuda_fp16.h>

#include <type_traits>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/rows/row_grid.h"

namespace eps::cuda {
namespace {

__device__ __forceinline__ void load(const __half* p, float (&v)[1]) { v[0] = __half2float(*p); }
using ::eps::cuda::load;

template <typename T, int kUnit>
__global__ void embed_kernel(const T* table, const int32_t* ids, int width, float* out) {
  wait_for_previous_kernel();
  const int64_t i = unit_index() * kUnit;
  if (i >= width) return;
  float v[kUnit];
  load(table + int64_t{ids[row_index()]} * width + i, v);
  store(out + row_index() * width + i, v);
}

template <int kUnit, typename In>
__global__ void swiglu_kernel(const In* gate_up, int width, nv_bf16* out, ops::SwigluParams swiglu_params) {
  wait_for_previous_kernel();
  const int64_t i = unit_index() * kUnit;
  if (i >= width) return;
  const In* gate = gate_up + row_index() * 2 * width + i;
  float g[kUnit];
  float u[kUnit];
  load(gate, g);
  load(gate + width, u);
#pragma unroll
  for (int c = 0; c < kUnit; ++c) g[c] = swiglu(swiglu_params, g[c], u[c]);
  store(out + row_index() * width + i, g);
}

// x += y for each row of `width` elements; rows of y are y_stride apart, and a stride of 0 adds the same row to all.
template <int kUnit, typename T, typename In>
__global__ void add_kernel(T* x, const In* y, int64_t width, int64_t y_stride) {
  wait_for_previous_kernel();
  const int64_t i = unit_index() * kUnit;
  if (i >= width) return;
  float a[kUnit];
  float b[kUnit];
  load(x + row_index() * width + i, a);
  load(y + row_index() * y_stride + i, b);
#pragma unroll
  for (int c = 0; c < kUnit; ++c) a[c] += b[c];
  store(x + row_index() * width + i, a);
}

template <int kUnit, typename T>
__global__ void clamp_kernel(T* x, float limit, int64_t width) {
  wait_for_previous_kernel();
  const int64_t i = unit_index() * kUnit;
  if (i >= width) return;
  float v[kUnit];
  load(x + row_index() * width + i, v);
#pragma unroll
  for (float& e : v) e = fminf(fmaxf(e, -limit), limit);
  store(x + row_index() * width + i, v);
}

template <int kUnit, typename T>
__global__ void scale_by_sigmoid_kernel(T* rows, const float* logits, int width) {
  wait_for_previous_kernel();
  const int64_t i = unit_index() * kUnit;
  if (i >= width) return;
  const float scale = sigmoid(logits[row_index()]);
  float v[kUnit];
  load(rows + row_index() * width + i, v);
#pragma unroll
  for (float& e : v) e *= scale;
  store(rows + row_index() * width + i, v);
}

template <int kUnit>
__global__ void convert_kernel(const float* x, int64_t width, nv_bf16* out) {
  wait_for_previous_kernel();
  const int64_t i = unit_index() * kUnit;
  if (i >= width) return;
  float v[kUnit];
  load(x + row_index() * width + i, v);
  store(out + row_index() * width + i, v);
}

// Flat arrays are processed as rows of this many elements, of which the last may be shorter, because a grid can have at
// most 65535 blocks in y.
constexpr int64_t kFlatRow = int64_t{RowGrid::kMaxThreads} * kVector;

template <typename RunRows>
void in_flat_rows(int64_t n, const RunRows& run_rows) {
  const int64_t whole = n / kFlatRow;
  if (whole > 0) run_rows(0, whole, kFlatRow);
  if (n % kFlatRow > 0) run_rows(whole * kFlatRow, 1, n % kFlatRow);
}

template <typename T, typename In>
void launch_add_rows(T* x, const In* y, int64_t rows, int64_t width, int64_t y_stride, cudaStream_t stream) {
  const bool vectors = takes_vectors(width, x, y);
  const RowGrid g(rows, vectors ? width / kVector : width);
  launch_overlapped(vectors ? add_kernel<kVector, T, In> : add_kernel<1, T, In>, {.grid = g.grid, .threads = g.threads},
                    stream, x, y, width, y_stride);
}

}  // namespace

template <typename T>
void launch_embed_tokens(const EmbedTokensParams<T>& p, cudaStream_t stream) {
  if (p.n == 0 || p.width == 0) return;
  const auto run = [&](auto kernel, int unit) {
    const RowGrid g(p.n, p.width / unit);
    launch_overlapped(kernel, {.grid = g.grid, .threads = g.threads}, stream, p.table, p.ids, p.width, p.out);
  };
  if constexpr (!std::is_same_v<T, __half>) {  // f16 tables are rare: the scalar kernel is enough
    if (takes_vectors(p.width, p.table, p.out)) return run(embed_kernel<T, kVector>, kVector);
  }
  run(embed_kernel<T, 1>, 1);
}
template void launch_embed_tokens(const EmbedTokensParams<nv_bf16>&, cudaStream_t);
template void launch_embed_tokens(const EmbedTokensParams<float>&, cudaStream_t);
template void launch_embed_tokens(const EmbedTokensParams<__half>&, cudaStream_t);

template <typename In>
void launch_swiglu(const SwigluRowsParams<In>& p, cudaStream_t stream) {
  if (p.rows == 0 || p.width == 0) return;
  const bool vectors = takes_vectors(p.width, p.gate_up, p.out);
  const RowGrid g(p.rows, vectors ? p.width / kVector : p.width);
  launch_overlapped(vectors ? swiglu_kernel<kVector, In> : swiglu_kernel<1, In>, {.grid = g.grid, .threads = g.threads},
                    stream, p.gate_up, p.width, p.out, p.swiglu);
}
template void launch_swiglu(const SwigluRowsParams<nv_bf16>&, cudaStream_t);
template void launch_swiglu(const SwigluRowsParams<float>&, cudaStream_t);

template <typename In>
void launch_add(float* x, const In* y, int64_t n, cudaStream_t stream) {
  in_flat_rows(n, [&](int64_t begin, int64_t rows, int64_t width) {
    launch_add_rows(x + begin, y + begin, rows, width, width, stream);
  });
}
template void launch_add(float*, const nv_bf16*, int64_t, cudaStream_t);
template void launch_add(float*, const float*, int64_t, cudaStream_t);

template <typename T>
void launch_add_bias(T* x, const float* bias, int64_t rows, int width, cudaStream_t stream) {
  if (rows == 0 || width == 0) return;
  launch_add_rows(x, bias, rows, width, 0, stream);
}
template void launch_add_bias(nv_bf16*, const float*, int64_t, int, cudaStream_t);
template void launch_add_bias(float*, const float*, int64_t, int, cudaStream_t);

template <typename T>
void launch_clamp(T* x, float limit, int64_t n, cudaStream_t stream) {
  in_flat_rows(n, [&](int64_t begin, int64_t rows, int64_t width) {
    const bool vectors = takes_vectors(width, x + begin);
    const RowGrid g(rows, vectors ? width / kVector : width);
    launch_overlapped(vectors ? clamp_kernel<kVector, T> : clamp_kernel<1, T>, {.grid = g.grid, .threads = g.threads},
                      stream, x + begin, limit, width);
  });
}
template void launch_clamp(nv_bf16*, float, int64_t, cudaStream_t);
template void launch_clamp(float*, float, int64_t, cudaStream_t);

template <typename T>
void launch_scale_by_sigmoid(T* rows, const float* logits, int64_t n, int width, cudaStream_t stream) {
  if (n == 0 || width == 0) return;
  const bool vectors = takes_vectors(width, rows);
  const RowGrid g(n, vectors ? width / kVector : width);
  launch_overlapped(vectors ? scale_by_sigmoid_kernel<kVector, T> : scale_by_sigmoid_kernel<1, T>,
                    {.grid = g.grid, .threads = g.threads}, stream, rows, logits, width);
}
template void launch_scale_by_sigmoid(nv_bf16*, const float*, int64_t, int, cudaStream_t);
template void launch_scale_by_sigmoid(float*, const float*, int64_t, int, cudaStream_t);

void launch_convert_to_bf16(const float* x, int64_t n, nv_bf16* out, cudaStream_t stream) {
  in_flat_rows(n, [&](int64_t begin, int64_t rows, int64_t width) {
    const bool vectors = takes_vectors(width, x + begin, out + begin);
    const RowGrid g(rows, vectors ? width / kVector : width);
    launch_overlapped(vectors ? convert_kernel<kVector> : convert_kernel<1>, {.grid = g.grid, .threads = g.threads},
                      stream, x + begin, width, out + begin);
  });
}

}  // namespace eps::cuda
