#include "ops/cuda/kernels/rows/norm.h"

#include <algorithm>
#include <type_traits>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/rows/row_grid.h"

namespace eps::cuda {
namespace {

constexpr int kMaxNormThreads = 512;

struct NoDelta {};

// One block per row. The row stays in registers: thread t holds vectors t, t + blockDim, …
template <typename In, typename Delta, typename Out, int kVectors>
__global__ void norm_kernel(In* in, int64_t in_stride, const Delta* delta, const float* weight, float eps, int width,
                            Out* out, int64_t out_stride) {
  wait_for_previous_kernel();
  constexpr bool kAdds = !std::is_same_v<Delta, NoDelta>;
  const int64_t row = blockIdx.x;
  in += row * in_stride;
  float v[kVectors][kVector];
  float square_sum = 0.0F;
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = (j * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * kVector;
    if (i >= width) continue;
    load(in + i, v[j]);
    if constexpr (kAdds) {
      float d[kVector];
      load(delta + row * width + i, d);
#pragma unroll
      for (int c = 0; c < kVector; ++c) v[j][c] += d[c];
      store(in + i, v[j]);
    }
#pragma unroll
    for (int c = 0; c < kVector; ++c) square_sum = fmaf(v[j][c], v[j][c], square_sum);
  }
  const float scale = rsqrtf(block_sum(square_sum) / static_cast<float>(width) + eps);
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = (j * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * kVector;
    if (i >= width) continue;
    float w[kVector];
    load(weight + i, w);
#pragma unroll
    for (int c = 0; c < kVector; ++c) v[j][c] = v[j][c] * scale * w[c];
    store(out + row * out_stride + i, v[j]);
  }
}

// For any width; reads each row twice.
template <typename In, typename Delta, typename Out>
__global__ void norm_scalar_kernel(In* in, int64_t in_stride, const Delta* delta, const float* weight, float eps,
                                   int width, Out* out, int64_t out_stride) {
  wait_for_previous_kernel();
  const int64_t row = blockIdx.x;
  in += row * in_stride;
  float square_sum = 0.0F;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += static_cast<int>(blockDim.x)) {
    float x = to_f32(in[i]);
    if constexpr (!std::is_same_v<Delta, NoDelta>) {
      x += to_f32(delta[row * width + i]);
      in[i] = x;
    }
    square_sum = fmaf(x, x, square_sum);
  }
  const float scale = rsqrtf(block_sum(square_sum) / static_cast<float>(width) + eps);
  for (int i = static_cast<int>(threadIdx.x); i < width; i += static_cast<int>(blockDim.x)) {
    out[row * out_stride + i] = from_f32<Out>(to_f32(in[i]) * scale * weight[i]);
  }
}

// One block per row, which is read three times: for the mean, for the variance about it, and for the result.
template <typename In, typename Out, int kUnit>
__global__ void layer_norm_kernel(NormParams<In, Out> p) {
  wait_for_previous_kernel();
  const In* in = p.in + int64_t{blockIdx.x} * p.in_row_stride;
  Out* out = p.out + int64_t{blockIdx.x} * p.out_row_stride;
  const auto each = [&](const auto& body) {
    for (int i = static_cast<int>(threadIdx.x) * kUnit; i < p.width; i += static_cast<int>(blockDim.x) * kUnit) {
      float v[kUnit];
      load(in + i, v);
      body(i, v);
    }
  };
  float sum = 0.0F;
  each([&](int, const float(&v)[kUnit]) {
#pragma unroll
    for (const float x : v) sum += x;
  });
  const float mean = block_sum(sum) / static_cast<float>(p.width);
  __syncthreads();  // before the next sum uses the same memory
  float square_sum = 0.0F;
  each([&](int, const float(&v)[kUnit]) {
#pragma unroll
    for (const float x : v) square_sum = fmaf(x - mean, x - mean, square_sum);
  });
  const float scale = rsqrtf(block_sum(square_sum) / static_cast<float>(p.width) + p.eps);
  each([&](int i, const float(&v)[kUnit]) {
    float w[kUnit];
    load(p.weight + i, w);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) w[e] *= (v[e] - mean) * scale;
    store(out + i, w);
  });
}

template <typename In, typename Delta, typename Out>
void launch(In* in, int64_t in_stride, const Delta* delta, const float* weight, float eps, int64_t rows, int width,
            Out* out, int64_t out_stride, cudaStream_t stream) {
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>(rows));
  constexpr int kScalarThreads = 256;
  const int64_t vectors = ceil_div(width, int64_t{kVector} * kMaxNormThreads);
  const bool aligned =
      takes_vectors(width, in, delta, weight, out) && in_stride % kVector == 0 && out_stride % kVector == 0;
  const auto run = [&](auto kernel, int threads) {
    launch_overlapped(kernel, {.grid = grid, .threads = threads}, stream, in, in_stride, delta, weight, eps, width, out,
                      out_stride);
  };
  if (!aligned || vectors > 4) {
    run(norm_scalar_kernel<In, Delta, Out>, kScalarThreads);
    return;
  }
  const int threads = round_up_to_warp(ceil_div(width, vectors * kVector));
  switch (vectors) {
    case 1: run(norm_kernel<In, Delta, Out, 1>, threads); break;
    case 2: run(norm_kernel<In, Delta, Out, 2>, threads); break;
    default: run(norm_kernel<In, Delta, Out, 4>, threads); break;
  }
}

}  // namespace

template <typename In, typename Out>
void launch_rms_norm(const NormParams<In, Out>& p, cudaStream_t stream) {
  launch<const In, NoDelta, Out>(p.in, p.in_row_stride, nullptr, p.weight, p.eps, p.rows, p.width, p.out,
                                 p.out_row_stride, stream);
}
template void launch_rms_norm(const NormParams<float, float>&, cudaStream_t);
template void launch_rms_norm(const NormParams<float, nv_bf16>&, cudaStream_t);
template void launch_rms_norm(const NormParams<nv_bf16, float>&, cudaStream_t);
template void launch_rms_norm(const NormParams<nv_bf16, nv_bf16>&, cudaStream_t);

template <typename In, typename Out>
void launch_layer_norm(const NormParams<In, Out>& p, cudaStream_t stream) {
  if (p.rows == 0 || p.width == 0) return;
  const bool vectors = takes_vectors(p.width, p.in, p.weight, p.out) && p.in_row_stride % kVector == 0 &&
                       p.out_row_stride % kVector == 0;
  const int64_t units = vectors ? p.width / kVector : p.width;
  const int threads = round_up_to_warp(std::min<int64_t>(units, kMaxNormThreads));
  launch_overlapped(vectors ? layer_norm_kernel<In, Out, kVector> : layer_norm_kernel<In, Out, 1>,
                    {.grid = dim3(static_cast<unsigned>(p.rows)), .threads = threads}, stream, p);
}
template void launch_layer_norm(const NormParams<float, float>&, cudaStream_t);
template void launch_layer_norm(const NormParams<float, nv_bf16>&, cudaStream_t);
template void launch_layer_norm(const NormParams<nv_bf16, float>&, cudaStream_t);
template void launch_layer_norm(const NormParams<nv_bf16, nv_bf16>&, cudaStream_t);

void launch_add_rms_norm(const AddRmsNormParams& p, cudaStream_t stream) {
  if (p.delta == nullptr) {
    launch_rms_norm<float, nv_bf16>({.in = p.hidden,
                                     .in_row_stride = p.width,
                                     .weight = p.weight,
                                     .eps = p.eps,
                                     .rows = p.rows,
                                     .width = p.width,
                                     .out = p.out,
                                     .out_row_stride = p.width},
                                    stream);
    return;
  }
  launch<float, nv_bf16, nv_bf16>(p.hidden, p.width, p.delta, p.weight, p.eps, p.rows, p.width, p.out, p.width, stream);
}

}  // namespace eps::cuda
