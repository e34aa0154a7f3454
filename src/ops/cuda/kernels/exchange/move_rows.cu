#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/exchange/move_rows.h"
#include "ops/cuda/kernels/gemm/grouped_gemm_ptx.cuh"

namespace eps::cuda {
namespace {

// Rows are copied in pieces of at most this many bytes. Larger pieces are no faster, and smaller ones take more
// instructions per byte.
constexpr int64_t kMaxPieceBytes = 16384;
constexpr int kRingBytes = 192 * 1024;  // of shared memory: the amount of data that one SM keeps in flight
constexpr int kMaxPieces = 64;          // capacity of the ring
// A slot is only refilled after this many later pieces have been written, because its own write may still be reading
// from it until then.
constexpr int kWriteLag = 4;

struct Pieces {
  int per_row;
  int bytes;  // of every piece but a row's last one
  int slots;  // of the ring
};

Pieces cut_row(int64_t row_bytes) {
  const int64_t per_row = ceil_div(row_bytes, kMaxPieceBytes);
  const int64_t bytes = ceil_div(ceil_div(row_bytes, per_row), 16) * 16;
  const int64_t slots = std::min<int64_t>(kMaxPieces, kRingBytes / bytes);
  return {static_cast<int>(ceil_div(row_bytes, bytes)), static_cast<int>(bytes), static_cast<int>(slots)};
}

__device__ __forceinline__ void copy_in(uint32_t smem, const void* from, int bytes, uint32_t bar) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(smem),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(bar)
               : "memory");
}
__device__ __forceinline__ void copy_out(void* to, uint32_t smem, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(__cvta_generic_to_global(to)),
               "r"(smem), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void copy_word(int32_t* to, const int32_t* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void wait_words() { asm volatile("cp.async.wait_all;" ::: "memory"); }

constexpr int kMaxPlaces = 32;

struct MoveSmem {
  uint64_t full[kMaxPieces];
  uint64_t empty[kMaxPieces];
  int32_t places[2][kWarp][kMaxPlaces];  // of the current batch of pieces and of the next one
};

// Sources and targets of rows that are pulled from other ranks.
struct Pull {
  using Params = PullRowsParams;
  static __device__ const void* source(const Params& p, int token, int64_t /*position*/) {
    return static_cast<const uint8_t*>(p.from[token / p.max_tokens]) + int64_t{token % p.max_tokens} * p.row_bytes;
  }
  static __device__ int num_places(const Params& p) { return p.places_per_token; }
  static __device__ const int32_t* places(const Params& p, const int32_t* token) {
    return p.places + int64_t{*token} * p.places_per_token;
  }
  static __device__ void* target(const Params& p, int place) {
    return static_cast<uint8_t*>(p.to) + int64_t{place} * p.row_bytes;
  }
};

// Sources and targets of rows that are pushed to other ranks. A row has exactly one target, which its token determines.
struct Push {
  using Params = PushRowsParams;
  static __device__ const void* source(const Params& p, int /*token*/, int64_t position) {
    return static_cast<const uint8_t*>(p.from) + position * p.row_bytes;
  }
  static __device__ int num_places(const Params& /*p*/) { return 1; }
  static __device__ const int32_t* places(const Params& /*p*/, const int32_t* token) { return token; }
  static __device__ void* target(const Params& p, int place) {
    return static_cast<uint8_t*>(p.to[place / p.max_tokens]) + int64_t{place % p.max_tokens} * p.row_bytes;
  }
};

// The pieces that this block copies: numbers blockIdx.x, blockIdx.x + gridDim.x, … of the list. They are looked up for
// a whole warp at a time, which hides the latency.
class PieceList {
 public:
  __device__ PieceList(const TokenList& list, const Pieces& cut, int64_t row_bytes)
      : tokens_(list.tokens),
        cut_(cut),
        row_bytes_(row_bytes),
        first_(list.begin[0]),
        in_list_(int64_t{list.begin[1] - first_} * cut.per_row) {}

  __device__ int64_t count() const { return in_list_ <= blockIdx.x ? 0 : (in_list_ - 1 - blockIdx.x) / gridDim.x + 1; }
  // The position in the list of this block's piece `i`. Beyond the last piece it is that of the list's first token, so
  // that reading it is safe.
  __device__ int64_t position(int64_t i) const {
    const int64_t piece = blockIdx.x + i * gridDim.x;
    return first_ + (piece < in_list_ ? piece / cut_.per_row : 0);
  }
  __device__ const int32_t* token(int64_t i) const { return tokens_ + position(i); }
  // The piece's offset in its row, in bytes.
  __device__ int64_t offset(int64_t i) const {
    return cut_.per_row == 1 ? 0 : (blockIdx.x + i * gridDim.x) % cut_.per_row * cut_.bytes;
  }
  __device__ int bytes(int64_t offset) const { return static_cast<int>(min(int64_t{cut_.bytes}, row_bytes_ - offset)); }

 private:
  const int32_t* tokens_;
  const Pieces& cut_;
  int64_t row_bytes_;
  int first_;
  int64_t in_list_;
};

// Copies the block's pieces into the ring. Called by one warp, whose lanes start the copies in turn.
template <typename Way>
__device__ void bring_pieces(const typename Way::Params& p, const Pieces& cut, const PieceList& list, MoveSmem& smem,
                             uint32_t ring) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t count = list.count();
  int slot = 0;
  uint32_t parity = 1;  // so that the first pass over the ring does not wait
  int token = *list.token(lane);
  for (int64_t batch = 0; batch < count; batch += kWarp) {
    const int next_token = *list.token(batch + kWarp + lane);
    const int64_t offset = list.offset(batch + lane);
    const int bytes = list.bytes(offset);
    const auto* from = static_cast<const uint8_t*>(Way::source(p, token, list.position(batch + lane))) + offset;
    const int here = static_cast<int>(min(count - batch, int64_t{kWarp}));
    for (int j = 0; j < here; ++j) {
      barrier_wait(shared_address(&smem.empty[slot]), parity);
      if (lane == j) {
        const uint32_t bar = shared_address(&smem.full[slot]);
        barrier_expect(bar, static_cast<uint32_t>(bytes));
        copy_in(ring + static_cast<uint32_t>(slot * cut.bytes), from, bytes, bar);
      }
      __syncwarp();
      if (++slot == cut.slots) {
        slot = 0;
        parity ^= 1;
      }
    }
    token = next_token;
  }
}

// Writes the block's pieces to their targets, one lane per target. Called by one warp.
template <typename Way>
__device__ void write_pieces(const typename Way::Params& p, const Pieces& cut, const PieceList& list, MoveSmem& smem,
                             uint32_t ring) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t count = list.count();
  const int num_places = Way::num_places(p);
  const auto fetch_places = [&](int buffer, int64_t piece) {
    const int32_t* from = Way::places(p, list.token(piece));
    for (int k = 0; k < num_places; ++k) copy_word(&smem.places[buffer][lane][k], from + k);
  };
  fetch_places(0, lane);
  int slot = 0;
  uint32_t parity = 0;
  int freed = -kWriteLag;  // the slot that is free again; the first kWriteLag pieces free none
  for (int64_t batch = 0; batch < count; batch += kWarp) {
    const int buffer = static_cast<int>(batch / kWarp % 2);
    wait_words();
    __syncwarp();
    fetch_places(1 - buffer, batch + kWarp + lane);
    const int here = static_cast<int>(min(count - batch, int64_t{kWarp}));
    for (int j = 0; j < here; ++j) {
      const int place = lane < num_places ? smem.places[buffer][j][lane] : -1;
      const int64_t offset = list.offset(batch + j);
      barrier_wait(shared_address(&smem.full[slot]), parity);
      if (place >= 0) {
        copy_out(static_cast<uint8_t*>(Way::target(p, place)) + offset, ring + static_cast<uint32_t>(slot * cut.bytes),
                 list.bytes(offset));
      }
      // Every lane commits one group per piece, even an empty one, so that the number of pending groups is a number of
      // pieces.
      commit_stores();
      wait_stores_read<kWriteLag>();
      __syncwarp();
      if (lane == 0 && freed >= 0) barrier_arrive(shared_address(&smem.empty[freed]));
      if (++freed == cut.slots) freed = 0;
      if (++slot == cut.slots) {
        slot = 0;
        parity ^= 1;
      }
    }
    __syncwarp();
  }
  wait_words();
  wait_stores_done();
}

// The first warp copies pieces into the ring, the second one writes them to their targets.
template <typename Way>
__global__ void __launch_bounds__(2 * kWarp)
    move_rows_kernel(const __grid_constant__ typename Way::Params p, const __grid_constant__ Pieces cut) {
  extern __shared__ __align__(128) uint8_t ring[];
  __shared__ __align__(8) MoveSmem smem;
  if (threadIdx.x == 0) {
    for (int s = 0; s < cut.slots; ++s) {
      barrier_init(shared_address(&smem.full[s]), 1);
      barrier_init(shared_address(&smem.empty[s]), 1);
    }
    barrier_init_done();
  }
  __syncthreads();
  wait_for_previous_kernel();
  const PieceList list(p.list, cut, p.row_bytes);
  if (list.count() == 0) return;
  if (threadIdx.x < kWarp) {
    bring_pieces<Way>(p, cut, list, smem, shared_address(ring));
  } else {
    write_pieces<Way>(p, cut, list, smem, shared_address(ring));
  }
}

template <typename Way>
void launch_move(const typename Way::Params& params, cudaStream_t stream) {
  EPS_CUDA_REQUIRE(params.row_bytes > 0 && params.row_bytes % 16 == 0 && params.num_blocks > 0);
  const Pieces cut = cut_row(params.row_bytes);
  EPS_CUDA_REQUIRE(cut.slots > kWriteLag);
  const int smem = cut.slots * cut.bytes;
  EPS_CUDA(cudaFuncSetAttribute(move_rows_kernel<Way>, cudaFuncAttributeMaxDynamicSharedMemorySize, smem));
  move_rows_kernel<Way>
      <<<static_cast<unsigned>(params.num_blocks), 2 * kWarp, static_cast<size_t>(smem), stream>>>(params, cut);
  EPS_CUDA_LAUNCHED(move_rows_kernel<Way>);
}

}  // namespace

void launch_pull_rows(const PullRowsParams& params, cudaStream_t stream) {
  EPS_CUDA_REQUIRE(params.places_per_token <= kMaxPlaces);
  launch_move<Pull>(params, stream);
}

void launch_push_rows(const PushRowsParams& params, cudaStream_t stream) { launch_move<Push>(params, stream); }

}  // namespace eps::cuda
