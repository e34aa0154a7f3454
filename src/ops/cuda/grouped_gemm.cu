#include "ops/cuda/grouped_gemm.h"

#include <cudaTypedefs.h>

#include <algorithm>

#include "ops/cuda/grouped_gemm_ptx.cuh"
#include "ops/cuda/grouped_gemm_walk.cuh"
#include "ops/cuda/wgmma.cuh"

namespace eps::cuda {
namespace {

constexpr int kStepK = 64;    // of k in one stage: a 128-byte row, the widest swizzle
constexpr int kStages = 4;    // what fits: 48 KB each
constexpr int kBoxRows = 64;  // of an operand in one copy
constexpr int kBoxBytes = kBoxRows * kStepK * 2;
constexpr int kRowBoxes = kTileRows / kBoxRows;
constexpr int kColBoxes = kTileCols / kBoxRows;

constexpr int kWarpGroup = 128;
constexpr int kComputeGroups = 2;  // warp groups, each 64 rows of the tile
constexpr int kThreads = (1 + kComputeGroups) * kWarpGroup;
constexpr int kOutRows = 16;  // of y in a warp
constexpr int kOutCols = 64;  // of y written at a time
constexpr int kOutBytes = kOutRows * kOutCols * 2;
constexpr int kOutBuffers = 2;  // of each warp

static_assert(kMaxWalkGroups == kMaxGroupsPerCall);

struct GroupedGemmSmem {
  uint8_t x[kStages][kRowBoxes * kBoxBytes];
  uint8_t w[kStages][kColBoxes * kBoxBytes];
  uint8_t out[kComputeGroups * kWarpGroup / 32][kOutBuffers][kOutBytes];
  uint64_t full[kStages];   // the copy engine has filled the stage
  uint64_t empty[kStages];  // the compute groups (of both blocks of a pair) have read it
  GroupedWalkTable table;
};
static_assert(sizeof(GroupedGemmSmem) <= 232448, "shared memory of an SM");

struct GroupedGemmParams {
  const int32_t* offsets;
  nv_bf16* y;
  int64_t y_cols;
  int num_groups;
  int group_begin;
  int col_tiles;
  int k_steps;
};

// The stage that comes next, and how often the ring has gone round.
struct Ring {
  uint32_t stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void advance_by(uint32_t steps) {
    parity ^= (stage + steps) / kStages & 1;
    stage = (stage + steps) % kStages;
  }
};

// Box `box` of a column tile: 64 columns of y each for kStore; 64 of the gate and the same 64 of up, in turn, for
// kSiluMul, so that one thread ends up with both.
template <GroupedEpilogue kEpilogue>
__device__ __forceinline__ int2 weight_box(int col_tile, int box) {
  if constexpr (kEpilogue == GroupedEpilogue::kStore) return {col_tile * kTileCols + box * kBoxRows, 0};
  return {col_tile * (kTileCols / 2) + box / 2 * kBoxRows, box % 2};
}

template <bool kPair, GroupedEpilogue kEpilogue>
__device__ void load_tiles(GroupedGemmSmem& smem, const CUtensorMap& x_map, const CUtensorMap& w_map,
                           const GroupedGemmParams& p, GroupedWalk<kPair>& walk, int rank) {
  Ring ring;
  GroupedTileWork work;
  while (walk.next(work)) {
    const int row_boxes = work.rows > kBoxRows ? 2 : 1;
    const int col_boxes = work.col_half < 0 ? kColBoxes : kColBoxes / 2;
    const int first_box = max(work.col_half, 0) * (kColBoxes / 2);
    const uint32_t bytes = (row_boxes + col_boxes) * kBoxBytes;
    const int group = p.group_begin + work.group;
#pragma unroll 1
    for (int step = 0; step < p.k_steps; ++step) {
      const uint32_t full = shared_address(&smem.full[ring.stage]);
      barrier_wait(shared_address(&smem.empty[ring.stage]), ring.parity ^ 1);
      barrier_expect(full, bytes);
      const int k = step * kStepK;
      const uint32_t x = shared_address(smem.x[ring.stage]);
      const uint32_t w = shared_address(smem.w[ring.stage]);
      if (kPair && !work.shares_cols) {
        if (rank < row_boxes) load_box_for_pair(x + rank * kBoxBytes, x_map, full, k, work.row + rank * kBoxRows);
      } else {
        for (int b = 0; b < row_boxes; ++b) load_box(x + b * kBoxBytes, x_map, full, k, work.row + b * kBoxRows);
      }
      if (kPair && work.shares_cols) {
        for (int b = rank * col_boxes / 2; b < (rank + 1) * col_boxes / 2; ++b) {
          const int2 at = weight_box<kEpilogue>(work.col_tile, first_box + b);
          load_box_for_pair(w + b * kBoxBytes, w_map, full, k, at.x, at.y, group);
        }
      } else {
        for (int b = 0; b < col_boxes; ++b) {
          const int2 at = weight_box<kEpilogue>(work.col_tile, first_box + b);
          load_box(w + b * kBoxBytes, w_map, full, k, at.x, at.y, group);
        }
      }
      ring.advance();
    }
  }
}

// Hands a stage back: one thread for each block whose copies write it.
template <bool kPair>
__device__ __forceinline__ void release_stage(GroupedGemmSmem& smem, uint32_t stage) {
  const uint32_t thread = threadIdx.x % kWarpGroup;
  const uint32_t empty = shared_address(&smem.empty[stage]);
  if constexpr (kPair) {
    if (thread % 32 == 0 && thread < 64) barrier_arrive_at(empty, thread / 32);
  } else {
    if (thread == 0) barrier_arrive(empty);
  }
}

// By one warp: hands back the next stages unread.
template <bool kPair>
__device__ __forceinline__ void pass_stages(GroupedGemmSmem& smem, Ring ring, int k_steps) {
#pragma unroll 1
  for (int step = 0; step < k_steps; ++step) {
    barrier_wait(shared_address(&smem.full[ring.stage]), ring.parity);
    const uint32_t empty = shared_address(&smem.empty[ring.stage]);
    const uint32_t lane = threadIdx.x % 32;
    __syncwarp();
    if constexpr (kPair) {
      if (lane < 2) barrier_arrive_at(empty, lane);
    } else {
      if (lane == 0) barrier_arrive(empty);
    }
    ring.advance();
  }
}

__device__ __forceinline__ void sync_warp_group(int compute_group) {
  if (compute_group == 0) {
    asm volatile("bar.sync 1, 128;" ::: "memory");
  } else {
    asm volatile("bar.sync 2, 128;" ::: "memory");
  }
}

// d = 64 rows of x times the tile's columns, over all of k.
template <bool kPair, bool kHalf>
__device__ __forceinline__ void multiply(GroupedGemmSmem& smem, float (&d)[128], Ring& ring, int k_steps,
                                         int compute_group) {
  uint32_t previous = 0;
#pragma unroll 1
  for (int step = 0; step < k_steps; ++step) {
    barrier_wait(shared_address(&smem.full[ring.stage]), ring.parity);
    const uint64_t x = make_operand_desc(shared_address(smem.x[ring.stage]) + compute_group * kBoxBytes);
    const uint64_t w = make_operand_desc(shared_address(smem.w[ring.stage]));
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kStepK / 16; ++i) {
      // 16 of k are 32 bytes, which a descriptor counts in sixteens.
      if constexpr (kHalf) {
        wgmma_m64n128k16(d, x + i * 2, w + i * 2, (step | i) != 0);
      } else {
        wgmma_m64n256k16(d, x + i * 2, w + i * 2, (step | i) != 0);
      }
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (step > 0) release_stage<kPair>(smem, previous);  // its products are done, this step's run on
    previous = ring.stage;
    ring.advance();
  }
  wgmma_wait<0>();
  release_stage<kPair>(smem, previous);
}

__device__ __forceinline__ float silu_mul(float gate, float up) { return __fdividef(gate, 1.0F + __expf(-gate)) * up; }

__device__ __forceinline__ uint32_t pack_bf16(float a, float b) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}

// A warp's 16 rows of y, 64 columns at a time, through shared memory: whole rows by the copy engine, the last rows of a
// group by 16-byte stores.
template <GroupedEpilogue kEpilogue>
__device__ __forceinline__ void write_rows(uint8_t (&buffers)[kOutBuffers][kOutBytes], int& buffer,
                                           const float (&d)[128], const CUtensorMap& y_map, const GroupedGemmParams& p,
                                           const GroupedTileWork& work, int first_row, int rows) {
  constexpr bool kSilu = kEpilogue == GroupedEpilogue::kSiluMul;
  constexpr int kChunks = kSilu ? 2 : 4;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int chunks = work.col_half < 0 ? kChunks : kChunks / 2;
  const int first_col = work.col_tile * (kChunks * kOutCols) + max(work.col_half, 0) * (kChunks / 2 * kOutCols);
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int col = first_col + chunk * kOutCols;
    if (chunk >= chunks || col >= p.y_cols) break;
    uint8_t* out = buffers[buffer];
    buffer ^= 1;
    if (lane == 0) wait_stores_read<kOutBuffers - 1>();
    __syncwarp();
    const int row = lane % 16;
#pragma unroll
    for (int j = 0; j < kOutCols / 8; j += 2) {
      uint32_t r[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (kSilu) {
          const int at = chunk * 64 + (j + i / 2) * 4 + i % 2 * 2;  // up is 64 columns, 32 registers, on
          r[i] = pack_bf16(silu_mul(d[at], d[at + 32]), silu_mul(d[at + 1], d[at + 33]));
        } else {
          const int at = chunk * 32 + (j + i / 2) * 4 + i % 2 * 2;
          r[i] = pack_bf16(d[at], d[at + 1]);
        }
      }
      // The copy engine's 128-byte swizzle: 16-byte pieces of a row change places by the row's low bits.
      const int piece = (j + lane / 16) ^ (row & 7);
      store_matrices(shared_address(out + row * (kOutCols * 2) + piece * 16), r);
    }
    if (rows >= kOutRows) {
      fence_for_copy_engine();
      __syncwarp();
      if (lane == 0) store_box(y_map, shared_address(out), col, first_row);
    } else {
      __syncwarp();
      for (int r = lane / 8; r < rows; r += 4) {
        const int piece = lane % 8;
        if (col + piece * 8 < p.y_cols) {
          const uint4 v = *reinterpret_cast<const uint4*>(out + r * (kOutCols * 2) + (piece ^ (r & 7)) * 16);
          *reinterpret_cast<uint4*>(p.y + (first_row + r) * p.y_cols + col + piece * 8) = v;
        }
      }
    }
    // Also where nothing was handed over, so that the wait above counts buffers.
    if (lane == 0) commit_stores();
  }
}

template <bool kPair, GroupedEpilogue kEpilogue>
__device__ void compute_tiles(GroupedGemmSmem& smem, const CUtensorMap& y_map, const GroupedGemmParams& p,
                              GroupedWalk<kPair>& walk) {
  const int compute_group = static_cast<int>(threadIdx.x / kWarpGroup) - 1;
  const int warp = static_cast<int>(threadIdx.x % kWarpGroup / 32);
  auto& buffers = smem.out[compute_group * 4 + warp];
  int buffer = 0;
  Ring ring;
  GroupedTileWork work;
  float d[128];
  while (walk.next(work)) {
    const int rows = work.rows - compute_group * kBoxRows;
    if (rows <= 0) {
      // No rows for this group of warps: the stages are handed on as they fill. Only the first warp watches them; the
      // others may still be writing the tile before, and would miss a round of the ring.
      if (warp == 0) pass_stages<kPair>(smem, ring, p.k_steps);
      ring.advance_by(static_cast<uint32_t>(p.k_steps));
      sync_warp_group(compute_group);
      continue;
    }
    if (work.col_half < 0) {
      multiply<kPair, false>(smem, d, ring, p.k_steps, compute_group);
    } else {
      multiply<kPair, true>(smem, d, ring, p.k_steps, compute_group);
    }
    const int warp_rows = rows - warp * kOutRows;
    if (warp_rows > 0) {
      write_rows<kEpilogue>(buffers, buffer, d, y_map, p, work, work.row + compute_group * kBoxRows + warp * kOutRows,
                            warp_rows);
    }
  }
  if (threadIdx.x % 32 == 0) wait_stores_done();
}

// One warp group copies, two multiply; blocks stay and walk over all tiles.
template <bool kPair, GroupedEpilogue kEpilogue>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                        const __grid_constant__ CUtensorMap y_map, const GroupedGemmParams p) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  GroupedGemmSmem& smem = *reinterpret_cast<GroupedGemmSmem*>(smem_bytes);
  const int rank = kPair ? static_cast<int>(cluster_rank()) : 0;
  constexpr int kBlocks = kPair ? 2 : 1;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(shared_address(&smem.full[s]), 1);
      barrier_init(shared_address(&smem.empty[s]), kComputeGroups * kBlocks);
    }
    barrier_init_done();
    prefetch_map(x_map);
    prefetch_map(w_map);
    prefetch_map(y_map);
  }
  // Started before the kernel in front of it ended: nothing that one wrote is read above.
  wait_for_previous_kernel();
  let_next_kernel_start();
  if (threadIdx.x / 32 == 1) build_walk_table<kPair>(smem.table, p.offsets, p.num_groups, p.col_tiles);
  __syncthreads();
  if (kPair) cluster_sync();

  GroupedWalk<kPair> walk(smem.table, p.num_groups, p.col_tiles, static_cast<int>(blockIdx.x) / kBlocks,
                          static_cast<int>(gridDim.x) / kBlocks, rank);
  // Register budgets: 56 * 128 + 224 * 256 of 65536. A compute thread holds 128 sums.
  if (threadIdx.x < kWarpGroup) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    if (threadIdx.x == 0) load_tiles<kPair, kEpilogue>(smem, x_map, w_map, p, walk, rank);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
    compute_tiles<kPair, kEpilogue>(smem, y_map, p, walk);
  }
  // The other block of the pair may still arrive at this one's barriers or write its stages.
  if (kPair) cluster_sync();
}

// One thread for each element of y.
template <GroupedEpilogue kEpilogue>
__global__ void grouped_gemm_plain_kernel(const nv_bf16* x, const nv_bf16* w, nv_bf16* y, const int32_t* offsets,
                                          int group_begin, int group_end, int64_t n, int64_t k) {
  const int64_t y_cols = kEpilogue == GroupedEpilogue::kSiluMul ? n / 2 : n;
  const int64_t col = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  const int64_t row = offsets[group_begin] + static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (col >= y_cols || row >= offsets[group_end]) return;
  int group = group_begin;
  while (row >= offsets[group + 1]) ++group;
  const nv_bf16* x_row = x + row * k;
  const nv_bf16* w_row = w + (group * n + col) * k;
  float sum = 0.0F;
  float up = 0.0F;
  for (int64_t i = 0; i < k; ++i) {
    const float v = __bfloat162float(x_row[i]);
    sum += v * __bfloat162float(w_row[i]);
    if constexpr (kEpilogue == GroupedEpilogue::kSiluMul) up += v * __bfloat162float(w_row[y_cols * k + i]);
  }
  if constexpr (kEpilogue == GroupedEpilogue::kSiluMul) sum = silu_mul(sum, up);
  y[row * y_cols + col] = __float2bfloat16(sum);
}

// bf16 [dims[rank - 1], …, dims[0]], dims[0] contiguous; strides in bytes of dims[1], …. What lies outside reads as
// zero.
CUtensorMap make_map(const nv_bf16* data, int rank, const cuuint64_t* dims, const cuuint64_t* strides,
                     const cuuint32_t* box) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    EPS_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
    EPS_CUDA(found == cudaDriverEntryPointSuccess ? cudaSuccess : cudaErrorSymbolNotFound);
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  const cuuint32_t element_strides[4] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(rank), const_cast<nv_bf16*>(data), dims,
             strides, box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  // One bad argument is all that the driver can object to here.
  EPS_CUDA(result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue);
  return map;
}

CUtensorMap make_matrix_map(const nv_bf16* data, int64_t rows, int64_t cols, int box_rows) {
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {dims[0] * sizeof(nv_bf16)};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)};
  return make_map(data, 2, dims, strides, box);
}

// [num_groups, parts, n / parts, k]: the rows of one part are bounded, so that none of the next are read in their
// stead.
CUtensorMap make_weight_map(const GroupedWeight& w, int parts) {
  const cuuint64_t dims[4] = {static_cast<cuuint64_t>(w.k), static_cast<cuuint64_t>(w.n / parts),
                              static_cast<cuuint64_t>(parts), static_cast<cuuint64_t>(w.num_groups)};
  const cuuint64_t strides[3] = {dims[0] * sizeof(nv_bf16), dims[0] * dims[1] * sizeof(nv_bf16),
                                 dims[0] * dims[1] * dims[2] * sizeof(nv_bf16)};
  const cuuint32_t box[4] = {kStepK, kBoxRows, 1, 1};
  return make_map(w.data, 4, dims, strides, box);
}

template <bool kPair, GroupedEpilogue kEpilogue>
void launch(const GroupedGemmCall& call, const GroupedGemmParams& p, int num_sms, cudaStream_t stream) {
  const auto kernel = grouped_gemm_kernel<kPair, kEpilogue>;
  EPS_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(GroupedGemmSmem)));
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {kPair ? 2U : 1U, 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(kPair ? std::max(num_sms / 2 * 2, 2) : num_sms);
  config.blockDim = kThreads;
  config.dynamicSmemBytes = sizeof(GroupedGemmSmem);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  const CUtensorMap x_map = make_matrix_map(call.x, call.max_rows, call.weight->k, kBoxRows);
  const CUtensorMap y_map = make_matrix_map(call.y, call.max_rows, p.y_cols, kOutRows);
  const CUtensorMap& w_map = call.weight->maps[kEpilogue == GroupedEpilogue::kSiluMul ? 1 : 0];
  EPS_CUDA(cudaLaunchKernelEx(&config, kernel, x_map, w_map, y_map, p));
}

int device_sms() {
  int device = 0;
  int sms = 0;
  EPS_CUDA(cudaGetDevice(&device));
  EPS_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  return sms;
}

int group_end(const GroupedGemmCall& call) { return call.group_end < 0 ? call.weight->num_groups : call.group_end; }

}  // namespace

bool can_run_grouped(int64_t n, int64_t k, GroupedEpilogue epilogue) {
  const int64_t y_cols = epilogue == GroupedEpilogue::kSiluMul ? n / 2 : n;
  const bool even = epilogue == GroupedEpilogue::kStore || n % 2 == 0;
  return even && y_cols > 0 && y_cols % 8 == 0 && k > 0 && k % 8 == 0;
}

GroupedWeight make_grouped_weight(const nv_bf16* data, int num_groups, int64_t n, int64_t k) {
  GroupedWeight weight{.data = data, .num_groups = num_groups, .n = n, .k = k};
  if (num_groups == 0) return weight;
  if (can_run_grouped(n, k, GroupedEpilogue::kStore)) weight.maps[0] = make_weight_map(weight, 1);
  if (can_run_grouped(n, k, GroupedEpilogue::kSiluMul)) weight.maps[1] = make_weight_map(weight, 2);
  return weight;
}

void grouped_gemm(const GroupedGemmCall& call, cudaStream_t stream) {
  const GroupedWeight& w = *call.weight;
  const int num_groups = group_end(call) - call.group_begin;
  if (call.max_rows == 0 || num_groups <= 0) return;
  const bool supported = num_groups <= kMaxGroupsPerCall && can_run_grouped(w.n, w.k, call.epilogue);
  EPS_CUDA(supported ? cudaSuccess : cudaErrorInvalidValue);
  const GroupedGemmParams p{
      .offsets = call.offsets + call.group_begin,
      .y = call.y,
      .y_cols = call.epilogue == GroupedEpilogue::kSiluMul ? w.n / 2 : w.n,
      .num_groups = num_groups,
      .group_begin = call.group_begin,
      // Of gate and up the columns are taken 128 at a time, 256 together.
      .col_tiles = static_cast<int>(ceil_div(w.n, kTileCols)),
      .k_steps = static_cast<int>(ceil_div(w.k, kStepK)),
  };
  const int sms = call.num_sms > 0 ? call.num_sms : device_sms();
  const bool pair = call.tile == GroupedTile::k256 && sms > 1;
  if (call.epilogue == GroupedEpilogue::kSiluMul) {
    pair ? launch<true, GroupedEpilogue::kSiluMul>(call, p, sms, stream)
         : launch<false, GroupedEpilogue::kSiluMul>(call, p, sms, stream);
  } else {
    pair ? launch<true, GroupedEpilogue::kStore>(call, p, sms, stream)
         : launch<false, GroupedEpilogue::kStore>(call, p, sms, stream);
  }
}

void grouped_gemm_plain(const GroupedGemmCall& call, cudaStream_t stream) {
  const GroupedWeight& w = *call.weight;
  const int end = group_end(call);
  if (call.max_rows == 0 || end <= call.group_begin) return;
  const bool silu = call.epilogue == GroupedEpilogue::kSiluMul;
  const dim3 block(32, 8);
  const dim3 grid(static_cast<unsigned>(ceil_div(call.max_rows, block.y)),
                  static_cast<unsigned>(ceil_div(silu ? w.n / 2 : w.n, block.x)));
  const auto kernel =
      silu ? grouped_gemm_plain_kernel<GroupedEpilogue::kSiluMul> : grouped_gemm_plain_kernel<GroupedEpilogue::kStore>;
  kernel<<<grid, block, 0, stream>>>(call.x, w.data, call.y, call.offsets, call.group_begin, end, w.n, w.k);
  EPS_CUDA_LAUNCHED();
}

GroupedTile choose_grouped_tile(std::span<const int64_t> /*rows_per_group*/, int64_t /*n*/, int64_t /*k*/,
                                int /*num_sms*/) {
  return GroupedTile::k256;
}
GroupedTile choose_grouped_tile(int64_t /*total_rows*/, int /*num_groups*/, int64_t /*n*/, int64_t /*k*/,
                                int /*num_sms*/) {
  return GroupedTile::k256;
}

}  // namespace eps::cuda
