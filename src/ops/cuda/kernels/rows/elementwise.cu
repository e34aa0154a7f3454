#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/rows/elementwise.h"

namespace eps::cuda {
namespace {

constexpr int kMaxThreads = 256;

int round_up_to_warp(int64_t n) { return static_cast<int>(ceil_div(n, kWarp) * kWarp); }

// A grid of `rows` by as many blocks as one thread for each of `units` takes. Index with row_index and unit_index.
struct RowGrid {
  dim3 grid;
  int threads;
  RowGrid(int64_t rows, int64_t units) : threads(units < kMaxThreads ? round_up_to_warp(units) : kMaxThreads) {
    grid = dim3(static_cast<unsigned>(rows), static_cast<unsigned>(ceil_div(units, threads)));
  }
};
__device__ __forceinline__ int64_t row_index() { return blockIdx.x; }
__device__ __forceinline__ int64_t unit_index() { return int64_t{blockIdx.y} * blockDim.x + threadIdx.x; }

template <typename... Pointers>
bool takes_vectors(int64_t width, Pointers... pointers) {
  return width % kVector == 0 && (is_aligned(pointers) && ...);
}

// --- embedding ---

template <int kUnit>
__global__ void embed_kernel(const nv_bf16* table, const int32_t* ids, int width, float* out) {
  wait_for_predecessor();
  const int64_t i = unit_index() * kUnit;
  if (i >= width) return;
  float v[kUnit];
  load(table + int64_t{ids[row_index()]} * width + i, v);
  store(out + row_index() * width + i, v);
}

// --- norms ---

struct NoDelta {};

// A block per row; the row stays in registers, thread t holding vectors t, t + blockDim, ...
template <typename In, typename Delta, typename Out, int kVectors>
__global__ void norm_kernel(In* in, int64_t in_stride, const Delta* delta, const float* weight, float eps, int width,
                            Out* out, int64_t out_stride) {
  wait_for_predecessor();
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

// Any width: reads the row twice.
template <typename In, typename Delta, typename Out>
__global__ void norm_scalar_kernel(In* in, int64_t in_stride, const Delta* delta, const float* weight, float eps,
                                   int width, Out* out, int64_t out_stride) {
  wait_for_predecessor();
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

template <typename In, typename Delta, typename Out>
void launch_norm(In* in, int64_t in_stride, const Delta* delta, const float* weight, float eps, int64_t rows, int width,
                 Out* out, int64_t out_stride, cudaStream_t stream) {
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>(rows));
  constexpr int kMaxNormThreads = 512;
  const int64_t vectors = ceil_div(width, int64_t{kVector} * kMaxNormThreads);
  const bool aligned =
      takes_vectors(width, in, delta, weight, out) && in_stride % kVector == 0 && out_stride % kVector == 0;
  const auto run = [&](auto kernel, int threads) {
    launch_overlapped(kernel, grid, threads, stream, in, in_stride, delta, weight, eps, width, out, out_stride);
  };
  if (!aligned || vectors > 4) {
    run(norm_scalar_kernel<In, Delta, Out>, kMaxThreads);
    return;
  }
  const int threads = round_up_to_warp(ceil_div(width, vectors * kVector));
  switch (vectors) {
    case 1: run(norm_kernel<In, Delta, Out, 1>, threads); break;
    case 2: run(norm_kernel<In, Delta, Out, 2>, threads); break;
    default: run(norm_kernel<In, Delta, Out, 4>, threads); break;
  }
}

// --- rotation ---

// Rotates kUnit / 2 pairs; `angle` is the index of the first in the table.
template <int kUnit>
__device__ __forceinline__ void rotate(float (&v)[kUnit], const DeviceRopeTable& table, int64_t angle) {
#pragma unroll
  for (int i = 0; i < kUnit / 2; ++i) {
    const float c = table.cos[angle + i];
    const float s = table.sin[angle + i];
    const float a = v[2 * i];
    const float b = v[2 * i + 1];
    v[2 * i] = a * c - b * s;
    v[2 * i + 1] = a * s + b * c;
  }
}

__device__ __forceinline__ void load(const nv_bf16* p, float (&v)[2]) {
  v[0] = to_f32(p[0]);
  v[1] = to_f32(p[1]);
}
__device__ __forceinline__ void store(nv_bf16* p, const float (&v)[2]) {
  p[0] = from_f32<nv_bf16>(v[0]);
  p[1] = from_f32<nv_bf16>(v[1]);
}
using ::eps::cuda::load;
using ::eps::cuda::store;

// kUnit is kVector, or 2 (one pair).
template <int kUnit>
__global__ void rope_kernel(nv_bf16* x, int heads, int head_dim, int rope_dim, DeviceRopeTable table,
                            const int32_t* positions) {
  wait_for_predecessor();
  const int units_per_head = rope_dim / kUnit;
  const int unit = static_cast<int>(unit_index());
  if (unit >= heads * units_per_head) return;
  const int head = unit / units_per_head;
  const int i = unit % units_per_head * kUnit;
  nv_bf16* p = x + (row_index() * heads + head) * head_dim + head_dim - rope_dim + i;
  float v[kUnit];
  load(p, v);
  rotate(v, table, (int64_t{positions[row_index()]} * rope_dim + i) / 2);
  store(p, v);
}

// A warp per row. Norm unit kUnit (kVector or 1), rotation unit kPairs (kVector or 2).
template <int kUnit, int kPairs>
__global__ void store_latents_kernel(StoreLatentsParams p) {
  wait_for_predecessor();
  const int64_t row = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (row >= p.rows) return;
  const int32_t sequence_index = p.sequence_of_row[row];  // on its way while the row is read
  const nv_bf16* kv = p.kv + row * p.kv_row_stride;

  float square_sum = 0.0F;
  for (int i = lane * kUnit; i < p.lora; i += kWarp * kUnit) {
    float v[kUnit];
    load(kv + i, v);
#pragma unroll
    for (int c = 0; c < kUnit; ++c) square_sum = fmaf(v[c], v[c], square_sum);
  }
  const DeviceSequence sequence = p.sequences[sequence_index];
  const int64_t position = sequence.context - sequence.q_count + (row - sequence.q_begin);
  const int64_t slot = int64_t{p.layer} * sequence.capacity + position;
  const float scale = rsqrtf(warp_sum(square_sum) / static_cast<float>(p.lora) + p.eps);
  for (int i = lane * kUnit; i < p.lora; i += kWarp * kUnit) {
    float v[kUnit];
    float w[kUnit];
    load(kv + i, v);
    load(p.norm_weight + i, w);
#pragma unroll
    for (int c = 0; c < kUnit; ++c) v[c] = v[c] * scale * w[c];
    store(sequence.latent + slot * p.lora + i, v);
  }
  for (int i = lane * kPairs; i < p.rope_dim; i += kWarp * kPairs) {
    float v[kPairs];
    load(kv + p.lora + i, v);
    rotate(v, p.table, (position * p.rope_dim + i) / 2);
    store(sequence.k_pe + slot * p.rope_dim + i, v);
  }
}

// --- activations and sums ---

template <int kUnit, typename In>
__global__ void silu_mul_kernel(const In* gate_up, int width, nv_bf16* out) {
  wait_for_predecessor();
  const int64_t i = unit_index() * kUnit;
  if (i >= width) return;
  const In* gate = gate_up + row_index() * 2 * width + i;
  float g[kUnit];
  float u[kUnit];
  load(gate, g);
  load(gate + width, u);
#pragma unroll
  for (int c = 0; c < kUnit; ++c) g[c] = silu(g[c]) * u[c];
  store(out + row_index() * width + i, g);
}

// x += y per row of `width`, y_stride apart: 0 adds one row to all.
template <int kUnit, typename T, typename In>
__global__ void add_kernel(T* x, const In* y, int64_t width, int64_t y_stride) {
  wait_for_predecessor();
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

template <int kUnit>
__global__ void convert_kernel(const float* x, int64_t width, nv_bf16* out) {
  wait_for_predecessor();
  const int64_t i = unit_index() * kUnit;
  if (i >= width) return;
  float v[kUnit];
  load(x + row_index() * width + i, v);
  store(out + row_index() * width + i, v);
}

// Flat arrays as rows of this many elements, and a last shorter one: a grid that need not hold 2^31 blocks in y.
constexpr int64_t kFlatRow = int64_t{kMaxThreads} * kVector;

template <typename RunRows>
void in_flat_rows(int64_t n, const RunRows& run_rows) {
  const int64_t whole = n / kFlatRow;
  if (whole > 0) run_rows(0, whole, kFlatRow);
  if (n % kFlatRow > 0) run_rows(whole * kFlatRow, 1, n % kFlatRow);
}

template <typename T, typename In>
void launch_add(T* x, const In* y, int64_t rows, int64_t width, int64_t y_stride, cudaStream_t stream) {
  const bool vectors = takes_vectors(width, x, y);
  const RowGrid g(rows, vectors ? width / kVector : width);
  launch_overlapped(vectors ? add_kernel<kVector, T, In> : add_kernel<1, T, In>, g.grid, g.threads, stream, x, y, width,
                    y_stride);
}

// --- rows of bytes ---

template <typename Unit, bool kScatter>
__global__ void copy_rows_kernel(const Unit* in, const int32_t* index, int64_t units, Unit* out) {
  wait_for_predecessor();
  const int64_t i = unit_index();
  if (i >= units) return;
  const int64_t other = index[row_index()];
  const int64_t from = kScatter ? row_index() : other;
  const int64_t to = kScatter ? other : row_index();
  out[to * units + i] = in[from * units + i];
}

template <typename Unit, bool kScatter>
void launch_copy_units(const void* in, const int32_t* index, int64_t n, size_t row_bytes, void* out,
                       cudaStream_t stream) {
  const auto units = static_cast<int64_t>(row_bytes / sizeof(Unit));
  const RowGrid g(n, units);
  launch_overlapped(copy_rows_kernel<Unit, kScatter>, g.grid, g.threads, stream, static_cast<const Unit*>(in), index,
                    units, static_cast<Unit*>(out));
}

template <bool kScatter>
void launch_copy_rows(const void* in, const int32_t* index, int64_t n, size_t row_bytes, void* out,
                      cudaStream_t stream) {
  if (n == 0 || row_bytes == 0) return;
  if (row_bytes % sizeof(uint4) == 0 && is_aligned(in) && is_aligned(out)) {
    launch_copy_units<uint4, kScatter>(in, index, n, row_bytes, out, stream);
  } else {
    launch_copy_units<uint8_t, kScatter>(in, index, n, row_bytes, out, stream);
  }
}

}  // namespace

void embed(const nv_bf16* table, const int32_t* ids, int64_t n, int width, float* out, cudaStream_t stream) {
  if (n == 0 || width == 0) return;
  const bool vectors = takes_vectors(width, table, out);
  const RowGrid g(n, vectors ? width / kVector : width);
  launch_overlapped(vectors ? embed_kernel<kVector> : embed_kernel<1>, g.grid, g.threads, stream, table, ids, width,
                    out);
}

template <typename Delta>
void add_rms_norm(float* hidden, const Delta* delta, const float* weight, float eps, int64_t rows, int width,
                  nv_bf16* out, cudaStream_t stream) {
  if (delta == nullptr) {
    rms_norm<float, nv_bf16>(hidden, width, weight, eps, rows, width, out, width, stream);
  } else {
    launch_norm<float, Delta, nv_bf16>(hidden, width, delta, weight, eps, rows, width, out, width, stream);
  }
}
template void add_rms_norm(float*, const nv_bf16*, const float*, float, int64_t, int, nv_bf16*, cudaStream_t);
template void add_rms_norm(float*, const float*, const float*, float, int64_t, int, nv_bf16*, cudaStream_t);

template <typename In, typename Out>
void rms_norm(const In* in, int64_t in_row_stride, const float* weight, float eps, int64_t rows, int width, Out* out,
              int64_t out_row_stride, cudaStream_t stream) {
  launch_norm<const In, NoDelta, Out>(in, in_row_stride, nullptr, weight, eps, rows, width, out, out_row_stride,
                                      stream);
}
template void rms_norm(const float*, int64_t, const float*, float, int64_t, int, float*, int64_t, cudaStream_t);
template void rms_norm(const float*, int64_t, const float*, float, int64_t, int, nv_bf16*, int64_t, cudaStream_t);
template void rms_norm(const nv_bf16*, int64_t, const float*, float, int64_t, int, float*, int64_t, cudaStream_t);
template void rms_norm(const nv_bf16*, int64_t, const float*, float, int64_t, int, nv_bf16*, int64_t, cudaStream_t);

void rope(nv_bf16* x, int64_t rows, int heads, int head_dim, int rope_dim, const DeviceRopeTable& table,
          const int32_t* positions, cudaStream_t stream) {
  if (rows == 0 || heads == 0 || rope_dim == 0) return;
  EPS_CUDA_REQUIRE(rope_dim % 2 == 0);
  const bool vectors = takes_vectors(rope_dim, x) && head_dim % kVector == 0;
  const RowGrid g(rows, int64_t{heads} * rope_dim / (vectors ? kVector : 2));
  launch_overlapped(vectors ? rope_kernel<kVector> : rope_kernel<2>, g.grid, g.threads, stream, x, heads, head_dim,
                    rope_dim, table, positions);
}

void store_latents(const StoreLatentsParams& p, cudaStream_t stream) {
  if (p.rows == 0) return;
  EPS_CUDA_REQUIRE(p.rope_dim % 2 == 0);
  const bool vectors =
      takes_vectors(p.lora, p.kv, p.norm_weight) && p.rope_dim % kVector == 0 && p.kv_row_stride % kVector == 0;
  constexpr int kThreads = 128;
  const dim3 grid(static_cast<unsigned>(ceil_div(p.rows, kThreads / kWarp)));
  launch_overlapped(vectors ? store_latents_kernel<kVector, kVector> : store_latents_kernel<1, 2>, grid, kThreads,
                    stream, p);
}

template <typename In>
void silu_mul(const In* gate_up, int64_t rows, int width, nv_bf16* out, cudaStream_t stream) {
  if (rows == 0 || width == 0) return;
  const bool vectors = takes_vectors(width, gate_up, out);
  const RowGrid g(rows, vectors ? width / kVector : width);
  launch_overlapped(vectors ? silu_mul_kernel<kVector, In> : silu_mul_kernel<1, In>, g.grid, g.threads, stream, gate_up,
                    width, out);
}
template void silu_mul(const nv_bf16*, int64_t, int, nv_bf16*, cudaStream_t);
template void silu_mul(const float*, int64_t, int, nv_bf16*, cudaStream_t);

template <typename In>
void add(float* x, const In* y, int64_t n, cudaStream_t stream) {
  in_flat_rows(n, [&](int64_t begin, int64_t rows, int64_t width) {
    launch_add(x + begin, y + begin, rows, width, width, stream);
  });
}
template void add(float*, const nv_bf16*, int64_t, cudaStream_t);
template void add(float*, const float*, int64_t, cudaStream_t);

template <typename T>
void add_bias(T* x, const float* bias, int64_t rows, int width, cudaStream_t stream) {
  if (rows == 0 || width == 0) return;
  launch_add(x, bias, rows, width, 0, stream);
}
template void add_bias(nv_bf16*, const float*, int64_t, int, cudaStream_t);
template void add_bias(float*, const float*, int64_t, int, cudaStream_t);

void convert_to_bf16(const float* x, int64_t n, nv_bf16* out, cudaStream_t stream) {
  in_flat_rows(n, [&](int64_t begin, int64_t rows, int64_t width) {
    const bool vectors = takes_vectors(width, x + begin, out + begin);
    const RowGrid g(rows, vectors ? width / kVector : width);
    launch_overlapped(vectors ? convert_kernel<kVector> : convert_kernel<1>, g.grid, g.threads, stream, x + begin,
                      width, out + begin);
  });
}

void gather_rows(const void* in, const int32_t* index, int64_t n, size_t row_bytes, void* out, cudaStream_t stream) {
  launch_copy_rows<false>(in, index, n, row_bytes, out, stream);
}

void scatter_rows(const void* in, const int32_t* index, int64_t n, size_t row_bytes, void* out, cudaStream_t stream) {
  launch_copy_rows<true>(in, index, n, row_bytes, out, stream);
}

}  // namespace eps::cuda
