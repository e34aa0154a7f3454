#include "ops/cuda/kernels/attention/gqa_attend.h"

#include <algorithm>
#include <cmath>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/device/sm_count.h"

// A warp multiplies with mma.m16n8k16: 16 rows of queries with tiles of 16 keys, then 16 rows of probabilities with the
// same 16 values. Neither keys nor values pass through shared memory, because terms of a product may be in any order
// and columns of a result may stand anywhere:
//   scores  a lane uses 16 consecutive bytes of a key as its part of two products over 16 dimensions each, with the
//           same dimensions of the queries on the other side
//   sums    a lane holds 8 consecutive dimensions of four values, which make its part of eight products: product j
//           computes the dimensions j, j + 8, j + 16, …, so that a lane ends up with 16 consecutive dimensions
// In the comments below, g = lane / 4 and c = lane % 4 are a lane's position in the fragments.
namespace eps::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRows = 16;       // of a block
constexpr int kKeys = 16;       // of a warp's tile
constexpr int kMaxSplits = 32;  // blocks that divide a context
constexpr int kPad = 4;         // floats between rows in shared memory, against bank conflicts
constexpr int kMergeWidth = 4;  // dimensions that a thread merges at a time
constexpr float kLog2E = 1.4426950408889634F;

__device__ __forceinline__ void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Loads 8 elements of a row of `dim` elements, beginning at element `i`; 0 for those outside of it and for all of a row
// that does not exist. kVectors: rows are aligned to 16 bytes, and `dim` is a multiple of 8.
template <bool kVectors>
__device__ __forceinline__ uint4 load_units(const nv_bf16* row, int i, int dim, bool exists) {
  if constexpr (kVectors) {
    return exists && i < dim ? *reinterpret_cast<const uint4*>(row + i) : uint4{0, 0, 0, 0};
  } else {
    const auto* bits = reinterpret_cast<const uint16_t*>(row);
    uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const uint32_t low = exists && i + 2 * w < dim ? bits[i + 2 * w] : 0;
      const uint32_t high = exists && i + 2 * w + 1 < dim ? bits[i + 2 * w + 1] : 0;
      words[w] = low | high << 16;
    }
    return {words[0], words[1], words[2], words[3]};
  }
}

__device__ __forceinline__ uint32_t word_of(const uint4& v, int w) {
  return w == 0 ? v.x : w == 1 ? v.y : w == 2 ? v.z : v.w;
}

// Sums of a row so far: Σ 2^(score - max) and, elsewhere, Σ 2^(score - max) · value.
struct RowState {
  float max = -INFINITY;
  float sum = 0.0F;
};

// What must be known of a row: it attends to positions [begin, end).
struct RowRange {
  int begin = 0;
  int end = 0;
};

// Keys [0, count) of a head, or values, `stride` elements apart.
struct CacheRows {
  const nv_bf16* first;
  int64_t stride;
  int count;
};

template <int kDim, bool kVectors>
struct KeyTile {
  static constexpr int kSteps = kDim / 32;
  uint4 part[2][kSteps];  // of keys g and 8 + g: dimensions 32 · step + 8c and following

  __device__ __forceinline__ void load(const CacheRows& keys, int position, int dim) {
    const int g = static_cast<int>(threadIdx.x) % kWarp / 4;
    const int c = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const int p = position + 8 * t + g;
      const nv_bf16* row = keys.first + p * keys.stride;
#pragma unroll
      for (int s = 0; s < kSteps; ++s) part[t][s] = load_units<kVectors>(row, 32 * s + 8 * c, dim, p < keys.count);
    }
  }
};

template <int kDim, bool kVectors>
struct ValueTile {
  static constexpr int kBlocks = kDim / 64;
  uint4 part[4][kBlocks];  // of values 2c, 2c + 1, 2c + 8 and 2c + 9: dimensions 64 · block + 8g and following

  __device__ __forceinline__ void load(const CacheRows& values, int position, int dim) {
    const int g = static_cast<int>(threadIdx.x) % kWarp / 4;
    const int c = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const int p = position + 2 * c + v % 2 + v / 2 * 8;
      const nv_bf16* row = values.first + p * values.stride;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) part[v][b] = load_units<kVectors>(row, 64 * b + 8 * g, dim, p < values.count);
    }
  }
};

// A warp's rows g and g + 8 over its share of the context.
template <int kDim, bool kVectors>
class WarpAttention {
 public:
  static constexpr int kSteps = kDim / 32;
  static constexpr int kBlocks = kDim / 64;

  // `query`: the rows g and g + 8, or null for one that does not exist.
  __device__ __forceinline__ void load_queries(const nv_bf16* const (&query)[2], int dim) {
    const int c = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        query_[r][s] = load_units<kVectors>(query[r], 32 * s + 8 * c, dim, query[r] != nullptr);
      }
    }
  }

  // Adds the positions of every `stride`-th tile from `first` on.
  __device__ __forceinline__ void attend(const CacheRows& keys, const CacheRows& values, const RowRange (&range)[2],
                                         int first, int stride, float scale_log2, int dim) {
    KeyTile<kDim, kVectors> key;
    ValueTile<kDim, kVectors> value;
    key.load(keys, first, dim);
    for (int position = first; position < keys.count; position += stride) {
      value.load(values, position, dim);
      float score[2][4] = {};
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const uint4& q0 = query_[0][s];
        const uint4& q1 = query_[1][s];
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          const uint4& k = key.part[t][s];
          multiply(score[t], q0.x, q1.x, q0.y, q1.y, k.x, k.y);
          multiply(score[t], q0.z, q1.z, q0.w, q1.w, k.z, k.w);
        }
      }
      key.load(keys, position + stride, dim);  // the next tile, while this one is added
      uint32_t probability[4];
      update_rows(score, range, position, scale_log2, probability);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const uint32_t halves = j % 2 == 0 ? 0x5410 : 0x7632;  // element j of two values
          const uint32_t b0 = __byte_perm(word_of(value.part[0][b], j / 2), word_of(value.part[1][b], j / 2), halves);
          const uint32_t b1 = __byte_perm(word_of(value.part[2][b], j / 2), word_of(value.part[3][b], j / 2), halves);
          multiply(sum_[b][j], probability[0], probability[1], probability[2], probability[3], b0, b1);
        }
      }
    }
    // So far, each of the four lanes of a row has added its own columns.
#pragma unroll
    for (RowState& row : row_) {
      row.sum += __shfl_xor_sync(~0U, row.sum, 1);
      row.sum += __shfl_xor_sync(~0U, row.sum, 2);
    }
  }

  // Writes the sums [kRows, kDim + kPad] and the states [kRows].
  __device__ __forceinline__ void store(float* sums, RowState* states) const {
    const int g = static_cast<int>(threadIdx.x) % kWarp / 4;
    const int c = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = g + 8 * r;
      if (c == 0) states[row] = row_[r];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {  // columns 2c and 2c + 1 of all products
          auto* to = reinterpret_cast<float4*>(sums + row * (kDim + kPad) + 64 * b + 16 * c + 8 * half);
          const int at = 2 * r + half;
          to[0] = {sum_[b][0][at], sum_[b][1][at], sum_[b][2][at], sum_[b][3][at]};
          to[1] = {sum_[b][4][at], sum_[b][5][at], sum_[b][6][at], sum_[b][7][at]};
        }
      }
    }
  }

 private:
  // Turns the scores of a tile into probabilities, relative to the largest score so far, and scales the sums to it.
  __device__ __forceinline__ void update_rows(float (&score)[2][4], const RowRange (&range)[2], int position,
                                              float scale_log2, uint32_t (&probability)[4]) {
    const int c = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = -INFINITY;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int p = position + 8 * t + 2 * c + i;
          float& s = score[t][2 * r + i];
          s = p >= range[r].begin && p < range[r].end ? s * scale_log2 : -INFINITY;
          top = fmaxf(top, s);
        }
      }
      top = fmaxf(top, __shfl_xor_sync(~0U, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0U, top, 2));
      RowState& row = row_[r];
      top = fmaxf(top, row.max);
      const float base = top == -INFINITY ? 0.0F : top;  // the row has attended to nothing yet
      const float keep = exp2f(row.max - base);
      row.max = top;
      row.sum *= keep;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const float p0 = exp2f(score[t][2 * r] - base);
        const float p1 = exp2f(score[t][2 * r + 1] - base);
        row.sum += p0 + p1;
        probability[2 * t + r] = pack_bf16(p0, p1);
      }
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          sum_[b][j][2 * r] *= keep;
          sum_[b][j][2 * r + 1] *= keep;
        }
      }
    }
  }

  uint4 query_[2][kSteps];
  float sum_[kBlocks][8][4] = {};
  RowState row_[2];
};

// The share of a part in the sum of all parts, whose largest maximum is `top`.
__device__ __forceinline__ float share_of(const RowState& part, float top) {
  return part.max == -INFINITY ? 0.0F : exp2f(part.max - top);
}

// kMergeWidth dimensions of a row's sum, and the row's state.
struct Merged {
  RowState state;
  float4 sum{};

  // Adds a part whose sum has been scaled to `state.max` already, but for its share.
  __device__ __forceinline__ void add(float share, float part_sum, const float4& part) {
    state.sum = fmaf(share, part_sum, state.sum);
    sum.x = fmaf(share, part.x, sum.x);
    sum.y = fmaf(share, part.y, sum.y);
    sum.z = fmaf(share, part.z, sum.z);
    sum.w = fmaf(share, part.w, sum.w);
  }
};

template <int kDim>
struct BlockMemory {
  float sums[kWarps][kRows][kDim + kPad];
  RowState states[kWarps][kRows];
  bool is_last;
};

// The part of one block, if several divide a context.
template <int kDim>
struct BlockPart {
  float4 sums[kRows][kDim / kMergeWidth];
  RowState states[kRows];
};

// Merges the parts of the block's warps.
template <int kDim>
__device__ __forceinline__ Merged merge_warps(const BlockMemory<kDim>& memory, int row, int i) {
  Merged out;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) out.state.max = fmaxf(out.state.max, memory.states[w][row].max);
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const RowState& part = memory.states[w][row];
    out.add(share_of(part, out.state.max), part.sum, *reinterpret_cast<const float4*>(&memory.sums[w][row][i]));
  }
  return out;
}

// Merges the parts of blocks, which other blocks may have written: they are read from L2, several at a time.
template <int kDim>
__device__ __forceinline__ Merged merge_blocks(const BlockPart<kDim>* parts, int count, int row, int i) {
  constexpr int kLoads = 8;
  Merged out;
  for (int begin = 0; begin < count; begin += kLoads) {
    float4 sum[kLoads];
    RowState state[kLoads];
#pragma unroll
    for (int b = 0; b < kLoads; ++b) {
      if (begin + b >= count) continue;
      const BlockPart<kDim>& part = parts[begin + b];
      sum[b] = __ldcg(&part.sums[row][i / kMergeWidth]);
      const float2 raw = __ldcg(reinterpret_cast<const float2*>(&part.states[row]));
      state[b] = {raw.x, raw.y};
    }
    Merged next;
    next.state.max = out.state.max;
#pragma unroll
    for (int b = 0; b < kLoads; ++b) next.state.max = fmaxf(next.state.max, state[b].max);
    next.add(share_of(out.state, next.state.max), out.state.sum, out.sum);
#pragma unroll
    for (int b = 0; b < kLoads; ++b) next.add(share_of(state[b], next.state.max), state[b].sum, sum[b]);
    out = next;
  }
  return out;
}

// out = the row's sum, divided by the sum of its probabilities and of the sink's
template <bool kVectors>
__device__ __forceinline__ void write_row(const Merged& merged, float sink, nv_bf16* out, int num_elements) {
  const float top = fmaxf(merged.state.max, sink * kLog2E);
  const float share = share_of(merged.state, top);
  const float total = share * merged.state.sum + (sink == -INFINITY ? 0.0F : exp2f(sink * kLog2E - top));
  const float scale = share / total;
  const float values[kMergeWidth] = {merged.sum.x * scale, merged.sum.y * scale, merged.sum.z * scale,
                                     merged.sum.w * scale};
  if constexpr (kVectors) {
    *reinterpret_cast<uint2*>(out) = {pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3])};
  } else {
#pragma unroll
    for (int e = 0; e < kMergeWidth; ++e) {
      if (e < num_elements) out[e] = from_f32<nv_bf16>(values[e]);
    }
  }
}

// Whether this is the last of `count` blocks to arrive; all of them have then written what they wrote before. The
// counter is zero again afterwards, for the next launch.
__device__ __forceinline__ bool is_last_block(int32_t* counter, int count, bool& shared) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared = atomicAdd(counter, 1) == count - 1;
    if (shared) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return shared;
}

// grid (tiles of kRows rows · num_kv_heads · splits of the context, num_sequences). Row r of a sequence is its new
// token r / group, and head r % group of those that use the block's keys.
template <int kDim, bool kVectors>
__global__ void __launch_bounds__(kThreads, 1)
    gqa_attend_kernel(const __grid_constant__ GqaAttendParams p, int num_splits) {
  extern __shared__ __align__(16) std::byte raw[];
  auto& memory = *reinterpret_cast<BlockMemory<kDim>*>(raw);
  const int split = static_cast<int>(blockIdx.x) % num_splits;
  const int tile = static_cast<int>(blockIdx.x) / num_splits;
  const int kv_head = tile % p.dims.num_kv_heads;
  const int row0 = tile / p.dims.num_kv_heads * kRows;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int g = static_cast<int>(threadIdx.x) % kWarp / 4;
  const int group = p.dims.group();
  const int dim = p.dims.head_dim;
  // The step's data has been on the device since before its first kernel.
  const DeviceSequence seq = p.sequences[blockIdx.y];
  wait_for_previous_kernel();
  const int num_rows = seq.q_count * group;
  if (row0 >= num_rows) return;

  const int before = seq.context - seq.q_count;
  const auto row_offset = [&](int row) {
    const int64_t token = seq.q_begin + row / group;
    return (token * p.dims.num_heads + kv_head * group + row % group) * dim;
  };
  RowRange range[2];
  const nv_bf16* query[2] = {nullptr, nullptr};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = row0 + g + 8 * r;
    if (row >= num_rows) continue;
    range[r].end = before + row / group + 1;
    range[r].begin = p.window > 0 ? max(0, range[r].end - p.window) : 0;
    query[r] = p.q + row_offset(row);
  }
  const int first_end = before + row0 / group + 1;
  const int end = before + (min(row0 + kRows, num_rows) - 1) / group + 1;
  const int begin = p.window > 0 ? max(0, first_end - p.window) : 0;

  const int64_t layer_row = int64_t{p.layer} * seq.capacity;
  const int64_t offset = layer_row * p.dims.kv_width() + kv_head * dim;
  const CacheRows keys{seq.keys + offset, p.dims.kv_width(), end};
  const CacheRows values{seq.values + offset, p.dims.kv_width(), end};
  {
    WarpAttention<kDim, kVectors> attention;
    attention.load_queries(query, dim);
    attention.attend(keys, values, range, begin + (split * kWarps + warp) * kKeys, num_splits * kWarps * kKeys,
                     p.dims.softmax_scale * kLog2E, dim);
    attention.store(&memory.sums[warp][0][0], memory.states[warp]);
  }
  __syncthreads();

  constexpr int kUnitsPerRow = kDim / kMergeWidth;
  const int num_units = min(kRows, num_rows - row0) * kUnitsPerRow;
  const auto write = [&](int row, int i, const Merged& merged) {
    const float sink = p.sinks != nullptr ? p.sinks[kv_head * group + (row0 + row) % group] : -INFINITY;
    if (i < dim) write_row<kVectors>(merged, sink, p.out + row_offset(row0 + row) + i, dim - i);
  };
  const int unit_of_grid = static_cast<int>(blockIdx.y) * (static_cast<int>(gridDim.x) / num_splits) + tile;
  auto* parts = static_cast<BlockPart<kDim>*>(p.parts) + int64_t{unit_of_grid} * num_splits;
  for (int unit = static_cast<int>(threadIdx.x); unit < num_units; unit += kThreads) {
    const int row = unit / kUnitsPerRow;
    const int i = unit % kUnitsPerRow * kMergeWidth;
    const Merged merged = merge_warps(memory, row, i);
    if (num_splits == 1) {
      write(row, i, merged);
    } else {
      parts[split].sums[row][i / kMergeWidth] = merged.sum;
      if (i == 0) parts[split].states[row] = merged.state;
    }
  }
  if (num_splits == 1 || !is_last_block(p.arrived + unit_of_grid, num_splits, memory.is_last)) return;
  for (int unit = static_cast<int>(threadIdx.x); unit < num_units; unit += kThreads) {
    const int row = unit / kUnitsPerRow;
    const int i = unit % kUnitsPerRow * kMergeWidth;
    write(row, i, merge_blocks(parts, num_splits, row, i));
  }
}

int64_t num_tiles(const GqaAttendShape& shape, const GqaDims& dims) {
  return ceil_div(int64_t{shape.max_q_count} * dims.group(), kRows) * dims.num_kv_heads;
}

// As many blocks as there are SMs, because one is resident on each.
int num_splits(const GqaAttendShape& shape, const GqaDims& dims) {
  const int num_sms = count_sms();
  const int64_t units = std::max<int64_t>(1, num_tiles(shape, dims) * shape.num_sequences);
  return static_cast<int>(std::clamp<int64_t>(num_sms / units, 1, kMaxSplits));
}

template <int kDim, bool kVectors>
void launch(const GqaAttendParams& p, cudaStream_t stream) {
  const int splits = num_splits(p.shape, p.dims);
  constexpr auto kBytes = static_cast<int>(sizeof(BlockMemory<kDim>));
  EPS_CUDA(
      cudaFuncSetAttribute(gqa_attend_kernel<kDim, kVectors>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const dim3 grid(static_cast<unsigned>(num_tiles(p.shape, p.dims) * splits),
                  static_cast<unsigned>(p.shape.num_sequences));
  launch_overlapped(gqa_attend_kernel<kDim, kVectors>, {.grid = grid, .threads = kThreads, .shared_bytes = kBytes},
                    stream, p, splits);
}

}  // namespace

GqaAttendWorkspace gqa_attend_workspace(const GqaAttendShape& shape, const GqaDims& dims) {
  const int splits = num_splits(shape, dims);
  if (splits == 1) return {};
  const auto units = static_cast<size_t>(num_tiles(shape, dims) * shape.num_sequences);
  const size_t part = dims.head_dim <= 64 ? sizeof(BlockPart<64>) : sizeof(BlockPart<128>);
  return {.part_bytes = units * static_cast<size_t>(splits) * part, .num_counters = units};
}

void launch_gqa_attend(const GqaAttendParams& p, cudaStream_t stream) {
  if (p.shape.num_sequences == 0 || p.shape.max_q_count == 0) return;
  EPS_CUDA_REQUIRE_LE(p.dims.head_dim, kMaxGqaHeadDim);
  EPS_CUDA_REQUIRE(p.dims.num_heads % p.dims.num_kv_heads == 0);
  // The caches are aligned, because their rows are as wide as those of q or wider in multiples of the head dimension.
  const bool vectors = takes_vectors(p.dims.head_dim, p.q, p.out);
  if (p.dims.head_dim <= 64) return vectors ? launch<64, true>(p, stream) : launch<64, false>(p, stream);
  vectors ? launch<128, true>(p, stream) : launch<128, false>(p, stream);
}

}  // namespace eps::cuda
