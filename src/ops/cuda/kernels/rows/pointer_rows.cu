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

unsigned grid_of(int64_t n) { return static_cast<unsigned>(n); }

}  // namespace

void launch_gather_pointers(const GatherPointersParams& p, cudaStream_t stream) {
  if (p.n == 0 || p.row_bytes == 0) return;
  const auto bytes = static_cast<int64_t>(p.row_bytes);
  const auto run = [&](auto kernel, int64_t unit_bytes) {
    kernel<<<grid_of(p.n), kThreads, 0, stream>>>(p.sources, bytes / unit_bytes, p.out);
    EPS_CUDA_LAUNCHED(kernel);
  };
  if (bytes % 16 == 0) {
    run(gather_kernel<uint4>, 16);
  } else if (bytes % 4 == 0) {
    run(gather_kernel<uint32_t>, 4);
  } else {
    run(gather_kernel<uint8_t>, 1);
  }
}

void launch_scale_rows(const ScaleRowsParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  scale_kernel<<<grid_of(p.n), kThreads, 0, stream>>>(p.rows, p.weight, p.width);
  EPS_CUDA_LAUNCHED(scale_kernel);
}

void launch_add_row_pairs(const AddRowPairsParams& p, cudaStream_t stream) {
  if (p.n == 0 || p.width == 0) return;
  add_pairs_kernel<<<grid_of(ceil_div(p.width, kThreads)), kThreads, 0, stream>>>(p.pairs, p.n, p.width);
  EPS_CUDA_LAUNCHED(add_pairs_kernel);
}

}  // namespace eps::cuda
