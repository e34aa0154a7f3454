#include "ops/cuda/kernels/rows/rope.h"

#include <bit>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/rows/row_grid.h"

namespace eps::cuda {
namespace {

using ops::RopePairs;
using ops::RopePlace;

// (a, b) rotated by the angle with this cosine and sine.
__device__ __forceinline__ void rotate_pair(float& a, float& b, float c, float s) {
  const float rotated = a * c - b * s;
  b = a * s + b * c;
  a = rotated;
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

// The number of units that rotate_unit() divides a vector into. A unit is kUnit adjacent elements, or kUnit elements of
// each half.
template <int kUnit, RopePairs kPairs>
__host__ __device__ constexpr int rope_units(int rope_dim) {
  return kPairs == RopePairs::kAdjacent ? rope_dim / kUnit : rope_dim / 2 / kUnit;
}

// Rotates one unit of a vector of `rope_dim` elements; `angles` is the table index of its first pair. to may be from.
template <int kUnit, RopePairs kPairs>
__device__ __forceinline__ void rotate_unit(const nv_bf16* from, nv_bf16* to, int unit, int rope_dim,
                                            const DeviceRopeTable& table, int64_t angles) {
  const int i = unit * kUnit;
  if constexpr (kPairs == RopePairs::kAdjacent) {
    float v[kUnit];
    load(from + i, v);
#pragma unroll
    for (int e = 0; e < kUnit / 2; ++e) {
      const int64_t angle = angles + i / 2 + e;
      rotate_pair(v[2 * e], v[2 * e + 1], table.cos[angle], table.sin[angle]);
    }
    store(to + i, v);
  } else {
    const int half = rope_dim / 2;
    float a[kUnit];
    float b[kUnit];
    load(from + i, a);
    load(from + half + i, b);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) rotate_pair(a[e], b[e], table.cos[angles + i + e], table.sin[angles + i + e]);
    store(to + i, a);
    store(to + half + i, b);
  }
}

// The first of the elements of a head that are rotated.
__host__ __device__ __forceinline__ int first_rotated(int head_dim, int rope_dim, const ops::RopeLayout& layout) {
  return layout.place == RopePlace::kLast ? head_dim - rope_dim : 0;
}

template <int kUnit, RopePairs kPairs>
__global__ void rope_kernel(nv_bf16* x, int heads, int head_dim, int rope_dim, DeviceRopeTable table,
                            const int32_t* positions) {
  wait_for_previous_kernel();
  const int units_per_head = rope_units<kUnit, kPairs>(rope_dim);
  const int unit = static_cast<int>(unit_index());
  if (unit >= heads * units_per_head) return;
  const int head = unit / units_per_head;
  nv_bf16* p = x + (row_index() * heads + head) * head_dim + first_rotated(head_dim, rope_dim, table.layout);
  const int64_t angles = int64_t{positions[row_index()]} * rope_dim / 2;
  rotate_unit<kUnit, kPairs>(p, p, unit % units_per_head, rope_dim, table, angles);
}

// One warp per row. The norm processes kUnit elements at a time (kVector or 1), the rotation units of kRopeUnit.
template <int kUnit, int kRopeUnit, RopePairs kPairs>
__global__ void store_latents_kernel(StoreLatentsParams p) {
  wait_for_previous_kernel();
  const int64_t row = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (row >= p.rows) return;
  const int32_t sequence_index = p.sequence_of_row[row];  // loaded early, while the row is being read
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
  for (int unit = lane; unit < rope_units<kRopeUnit, kPairs>(p.rope_dim); unit += kWarp) {
    rotate_unit<kRopeUnit, kPairs>(kv + p.lora, sequence.k_pe + slot * p.rope_dim, unit, p.rope_dim, p.table,
                                   position * p.rope_dim / 2);
  }
}

constexpr int kHeadThreads = 256;
constexpr int kMaxHeadDim = 256;

// Pairs of heads with an even number of elements are aligned.
template <int kUnit>
__device__ __forceinline__ void load_aligned(const nv_bf16* p, float (&v)[kUnit]) {
  if constexpr (kUnit == 2) {
    const float2 pair = unpack_bf16(*reinterpret_cast<const uint32_t*>(p));
    v[0] = pair.x;
    v[1] = pair.y;
  } else {
    load(p, v);
  }
}
template <int kUnit>
__device__ __forceinline__ void store_aligned(nv_bf16* p, const float (&v)[kUnit]) {
  if constexpr (kUnit == 2) {
    *reinterpret_cast<uint32_t*>(p) = pack_bf16(v[0], v[1]);
  } else {
    store(p, v);
  }
}

// A head of a row: those of queries come first, then those of keys and of values.
struct Head {
  const nv_bf16* from;
  nv_bf16* to;
  const float* norm;
  bool is_rotated;
};

__device__ __forceinline__ int heads_per_row(const StoreHeadsParams& p) {
  return (p.q != nullptr ? p.num_heads : 0) + 2 * p.num_kv_heads;
}

// `cache_row`: of the token, in the caches of `sequence`.
__device__ __forceinline__ Head find_head(const StoreHeadsParams& p, const DeviceSequence& sequence, int64_t cache_row,
                                          int64_t row, int slot) {
  const int num_query_heads = p.q != nullptr ? p.num_heads : 0;
  if (slot < num_query_heads) {
    nv_bf16* q = p.q + (row * p.num_heads + slot) * p.head_dim;
    return {q, q, p.q_norm, p.rope_dim > 0};
  }
  const bool is_key = slot < num_query_heads + p.num_kv_heads;
  const int kv_head = (slot - num_query_heads) % p.num_kv_heads;
  return {(is_key ? p.k : p.v) + (row * p.num_kv_heads + kv_head) * p.head_dim,
          (is_key ? sequence.keys : sequence.values) + (cache_row * p.num_kv_heads + kv_head) * p.head_dim,
          is_key ? p.k_norm : nullptr, is_key && p.rope_dim > 0};
}

__device__ __forceinline__ int64_t find_cache_row(const StoreHeadsParams& p, const DeviceSequence& sequence,
                                                  int64_t row) {
  return int64_t{p.layer} * sequence.capacity + sequence.context - sequence.q_count + (row - sequence.q_begin);
}

// `lanes` threads per head, a power of two, with kVector elements each. A thread keeps its part of the rotation's table
// for all heads of the row that it processes. grid (rows, blocks that divide the heads)
__global__ void __launch_bounds__(kHeadThreads)
    store_heads_vector_kernel(const __grid_constant__ StoreHeadsParams p, int lanes) {
  const int64_t row = blockIdx.x;
  const int dim = p.head_dim;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int heads_per_block = static_cast<int>(blockDim.x) / lanes;
  const int i = lane * kVector;
  const bool exists = i < dim;
  // The step's data has been on the device since before its first kernel.
  const DeviceSequence sequence = p.sequences[p.sequence_of_row[row]];
  const int64_t cache_row = find_cache_row(p, sequence, row);

  const bool adjacent = p.table.layout.pairs == RopePairs::kAdjacent;
  const int half = p.rope_dim / 2;
  const int r = i - first_rotated(dim, p.rope_dim, p.table.layout);
  const bool is_rotated = exists && r >= 0 && r < p.rope_dim;
  const bool is_first = r < half;
  // The lane of the warp that has the other elements of the pairs.
  int partner = static_cast<int>(threadIdx.x) % kWarp;
  if (is_rotated && !adjacent) partner += (is_first ? half : -half) / kVector;
  float c[kVector] = {};
  float s[kVector] = {};
  if (is_rotated) {
    const int64_t angles = int64_t{p.positions[row]} * half;
    if (adjacent) {
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        c[e] = p.table.cos[angles + (r + e) / 2];
        s[e] = p.table.sin[angles + (r + e) / 2];
      }
    } else {
      load(p.table.cos + angles + r % half, c);
      load(p.table.sin + angles + r % half, s);
    }
  }
  wait_for_previous_kernel();
  const int num_heads = heads_per_row(p);
  const int stride = heads_per_block * static_cast<int>(gridDim.y);
  for (int first = static_cast<int>(blockIdx.y) * heads_per_block; first < num_heads; first += stride) {
    const int slot = first + static_cast<int>(threadIdx.x) / lanes;
    const bool is_used = exists && slot < num_heads;
    const Head head = find_head(p, sequence, cache_row, row, min(slot, num_heads - 1));
    float v[kVector] = {};
    if (is_used) load(head.from + i, v);
    if (p.q_norm != nullptr || p.k_norm != nullptr) {
      float square_sum = 0.0F;
#pragma unroll
      for (const float x : v) square_sum = fmaf(x, x, square_sum);
      for (int offset = lanes / 2; offset > 0; offset /= 2) square_sum += __shfl_xor_sync(~0U, square_sum, offset);
      if (is_used && head.norm != nullptr) {
        const float scale = rsqrtf(square_sum / static_cast<float>(dim) + p.eps);
        float w[kVector];
        load(head.norm + i, w);
#pragma unroll
        for (int e = 0; e < kVector; ++e) v[e] *= scale * w[e];
      }
    }
    if (adjacent) {
      if (is_rotated && head.is_rotated) {
#pragma unroll
        for (int e = 0; e < kVector; e += 2) rotate_pair(v[e], v[e + 1], c[e], s[e]);
      }
    } else {
      float other[kVector];
#pragma unroll
      for (int e = 0; e < kVector; ++e) other[e] = __shfl_sync(~0U, v[e], partner);
      if (is_rotated && head.is_rotated) {
#pragma unroll
        for (int e = 0; e < kVector; ++e)
          v[e] = is_first ? v[e] * c[e] - other[e] * s[e] : other[e] * s[e] + v[e] * c[e];
      }
    }
    if (is_used) store(head.to + i, v);
  }
}

// The same for any sizes: one warp per head, kUnit elements (2 or 1) at a time.
template <int kUnit>
__global__ void __launch_bounds__(kHeadThreads) store_heads_kernel(const __grid_constant__ StoreHeadsParams p) {
  __shared__ float heads[kHeadThreads / kWarp][kMaxHeadDim];
  wait_for_previous_kernel();
  const int64_t index = (int64_t{blockIdx.x} * kHeadThreads + threadIdx.x) / kWarp;
  const int64_t row = index / heads_per_row(p);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (row >= p.rows) return;
  const int dim = p.head_dim;
  const DeviceSequence sequence = p.sequences[p.sequence_of_row[row]];
  const auto [from, to, norm, is_rotated] =
      find_head(p, sequence, find_cache_row(p, sequence, row), row, static_cast<int>(index % heads_per_row(p)));
  const int rope_dim = is_rotated ? p.rope_dim : 0;

  float* head = heads[threadIdx.x / kWarp];
  float square_sum = 0.0F;
  for (int i = lane * kUnit; i < dim; i += kWarp * kUnit) {
    float v[kUnit];
    load_aligned(from + i, v);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      head[i + e] = v[e];
      square_sum = fmaf(v[e], v[e], square_sum);
    }
  }
  const float scale = norm != nullptr ? rsqrtf(warp_sum(square_sum) / static_cast<float>(dim) + p.eps) : 1.0F;
  __syncwarp();
  const int first = first_rotated(dim, rope_dim, p.table.layout);
  const bool adjacent = p.table.layout.pairs == RopePairs::kAdjacent;
  const int64_t angles = rope_dim > 0 ? int64_t{p.positions[row]} * rope_dim / 2 : 0;
  const auto value = [&](int i) { return norm != nullptr ? head[i] * scale * norm[i] : head[i]; };
  for (int i = lane * kUnit; i < dim; i += kWarp * kUnit) {
    float v[kUnit];
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      v[e] = value(i + e);
      const int r = i + e - first;
      if (r < 0 || r >= rope_dim) continue;
      const int half = rope_dim / 2;
      const bool is_first = adjacent ? r % 2 == 0 : r < half;
      const int distance = adjacent ? 1 : half;
      const int angle = adjacent ? r / 2 : r % half;
      const float partner = value(i + e + (is_first ? distance : -distance));
      const float c = p.table.cos[angles + angle];
      const float s = p.table.sin[angles + angle];
      v[e] = is_first ? v[e] * c - partner * s : partner * s + v[e] * c;
    }
    store_aligned(to + i, v);
  }
}

}  // namespace

void launch_rotate_heads(const RotateHeadsParams& p, cudaStream_t stream) {
  if (p.rows == 0 || p.heads == 0 || p.rope_dim == 0) return;
  EPS_CUDA_REQUIRE(p.rope_dim % 2 == 0);
  const int first = first_rotated(p.head_dim, p.rope_dim, p.table.layout);
  const auto run = [&](auto kernel, int units_per_head) {
    const RowGrid g(p.rows, int64_t{p.heads} * units_per_head);
    launch_overlapped(kernel, {.grid = g.grid, .threads = g.threads}, stream, p.x, p.heads, p.head_dim, p.rope_dim,
                      p.table, p.positions);
  };
  const bool aligned = is_aligned(p.x) && p.head_dim % kVector == 0 && first % kVector == 0;
  if (p.table.layout.pairs == RopePairs::kAdjacent) {
    const bool vectors = aligned && p.rope_dim % kVector == 0;
    run(vectors ? rope_kernel<kVector, RopePairs::kAdjacent> : rope_kernel<2, RopePairs::kAdjacent>,
        p.rope_dim / (vectors ? kVector : 2));
  } else {
    const bool vectors = aligned && p.rope_dim % (2 * kVector) == 0;
    run(vectors ? rope_kernel<kVector, RopePairs::kHalves> : rope_kernel<1, RopePairs::kHalves>,
        p.rope_dim / 2 / (vectors ? kVector : 1));
  }
}

void launch_store_latents(const StoreLatentsParams& p, cudaStream_t stream) {
  if (p.rows == 0) return;
  EPS_CUDA_REQUIRE(p.rope_dim % 2 == 0);
  constexpr int kThreads = 128;
  const dim3 grid(static_cast<unsigned>(ceil_div(p.rows, kThreads / kWarp)));
  const auto run = [&](auto kernel) { launch_overlapped(kernel, {.grid = grid, .threads = kThreads}, stream, p); };
  const bool aligned = takes_vectors(p.lora, p.kv, p.norm_weight) && p.kv_row_stride % kVector == 0;
  if (p.table.layout.pairs == RopePairs::kAdjacent) {
    const bool vectors = aligned && p.rope_dim % kVector == 0;
    run(vectors ? store_latents_kernel<kVector, kVector, RopePairs::kAdjacent>
                : store_latents_kernel<1, 2, RopePairs::kAdjacent>);
  } else {
    const bool vectors = aligned && p.rope_dim % (2 * kVector) == 0;
    run(vectors ? store_latents_kernel<kVector, kVector, RopePairs::kHalves>
                : store_latents_kernel<1, 1, RopePairs::kHalves>);
  }
}

void launch_store_heads(const StoreHeadsParams& p, cudaStream_t stream) {
  if (p.rows == 0 || p.head_dim == 0) return;
  EPS_CUDA_REQUIRE(p.rope_dim % 2 == 0 && p.rope_dim <= p.head_dim);
  EPS_CUDA_REQUIRE_LE(p.head_dim, kMaxHeadDim);
  const int64_t heads = (p.q != nullptr ? p.num_heads : 0) + int64_t{2} * p.num_kv_heads;
  const bool halves = p.table.layout.pairs == RopePairs::kHalves;
  const bool vectors = takes_vectors(p.head_dim, p.q, p.k, p.v, p.q_norm, p.k_norm, p.table.cos, p.table.sin) &&
                       first_rotated(p.head_dim, p.rope_dim, p.table.layout) % kVector == 0 &&
                       p.rope_dim % (halves ? 2 * kVector : kVector) == 0;
  if (vectors) {
    const auto lanes = static_cast<int>(std::bit_ceil(static_cast<unsigned>(p.head_dim / kVector)));
    // With few rows, a block for each part of the heads; with many, a block for each row.
    constexpr int64_t kFewRows = 512;
    const int64_t parts = p.rows < kFewRows ? ceil_div(heads * lanes, kHeadThreads) : 1;
    const dim3 grid(static_cast<unsigned>(p.rows), static_cast<unsigned>(parts));
    launch_overlapped(store_heads_vector_kernel, {.grid = grid, .threads = kHeadThreads}, stream, p, lanes);
    return;
  }
  const dim3 grid(static_cast<unsigned>(ceil_div(p.rows * heads, kHeadThreads / kWarp)));
  const auto kernel = p.head_dim % 2 == 0 ? store_heads_kernel<2> : store_heads_kernel<1>;
  launch_overlapped(kernel, {.grid = grid, .threads = kHeadThreads}, stream, p);
}

}  // namespace eps::cuda
