#include "ops/cuda/kernels/exchange/add_shares.h"

#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"

namespace eps::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1056;  // eight for each SM

template <typename T, int kUnit>
__global__ void add_shares_kernel(const __grid_constant__ AddSharesParams<T> p) {
  wait_for_previous_kernel();
  const int64_t step = int64_t{gridDim.x} * kThreads * kUnit;
  for (int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kUnit; i < p.n; i += step) {
    float sum[kUnit] = {};
    for (int r = 0; r < p.num_ranks; ++r) {
      float v[kUnit];
      load(p.from[r] + i, v);
#pragma unroll
      for (int e = 0; e < kUnit; ++e) sum[e] += v[e];
    }
    store(p.out + i, sum);
  }
}

}  // namespace

template <typename T>
void launch_add_shares(const AddSharesParams<T>& p, cudaStream_t stream) {
  if (p.n == 0) return;
  EPS_CUDA_REQUIRE_LE(p.num_ranks, kMaxRanks);
  bool vectors = takes_vectors(p.n, p.out);
  for (int r = 0; r < p.num_ranks; ++r) vectors = vectors && is_aligned(p.from[r]);
  const int64_t units = vectors ? p.n / kVector : p.n;
  const dim3 grid(static_cast<unsigned>(std::min(ceil_div(units, kThreads), kMostBlocks)));
  launch_overlapped(vectors ? add_shares_kernel<T, kVector> : add_shares_kernel<T, 1>,
                    {.grid = grid, .threads = kThreads}, stream, p);
}
template void launch_add_shares(const AddSharesParams<nv_bf16>&, cudaStream_t);
template void launch_add_shares(const AddSharesParams<float>&, cudaStream_t);

}  // namespace eps::cuda
