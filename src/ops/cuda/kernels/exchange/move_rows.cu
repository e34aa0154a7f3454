#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/exchange/move_rows.h"
#include "ops/cuda/kernels/gemm/grouped_gemm_ptx.cuh"

namespace eps::cuda {
namespace {

// A pair of warps takes about 280 ns for a piece, whatever its size, so an SM has several pairs, each with a part of
// the shared memory. Larger pieces would leave too few slots for the writes that are still reading.
constexpr int kPairs = kRowMovers;
constexpr int kThreads = kPairs * 2 * kWarp;
constexpr int64_t kMaxPieceBytes = 5120;
constexpr int kRingBytes = 192 * 1024 / kPairs;  // of shared memory: the amount of data that a pair keeps in flight
constexpr int kMaxPieces = 16;                   // capacity of a ring
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

// Of one pair of warps.
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
  static __device__ int num_parts(const Params& p) { return p.num_parts; }
  static __device__ int32_t* written(const Params& p) { return p.written; }
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
  static __device__ int num_parts(const Params& /*p*/) { return 1; }
  static __device__ int32_t* written(const Params& /*p*/) { return nullptr; }
  static __device__ const int32_t* places(const Params& /*p*/, const int32_t* token) { return token; }
  static __device__ void* target(const Params& p, int place) {
    return static_cast<uint8_t*>(p.to[place / p.max_tokens]) + int64_t{place % p.max_tokens} * p.row_bytes;
  }
};

// Pairs of warps are numbered over all blocks, those of different blocks in turn, so that short lists use all SMs.
__device__ __forceinline__ int this_pair() { return static_cast<int>(threadIdx.x) / (2 * kWarp); }
__device__ __forceinline__ int64_t pair_number() { return int64_t{this_pair()} * gridDim.x + blockIdx.x; }
__device__ __forceinline__ int64_t num_pairs() { return int64_t{kPairs} * gridDim.x; }

// The pieces that this pair copies: numbers pair_number(), pair_number() + num_pairs(), … of the list. They are looked
// up for a whole warp at a time, which hides the latency.
class PieceList {
 public:
  __device__ PieceList(const TokenList& list, int num_parts, const Pieces& cut, int64_t row_bytes)
      : list_(list), cut_(cut), row_bytes_(row_bytes), first_(list.begin[0]), in_list_(pieces_before(num_parts)) {}

  __device__ int64_t count() const { return own_of(in_list_); }
  // The number of this pair's pieces in the parts before `part`.
  __device__ int64_t count_before(int part) const { return own_of(pieces_before(part)); }
  // The position in the list of this pair's piece `i`. Beyond the last piece it is that of the list's first token, so
  // that reading it is safe.
  __device__ int64_t position(int64_t i) const {
    const int64_t piece = pair_number() + i * num_pairs();
    return first_ + (piece < in_list_ ? piece / cut_.per_row : 0);
  }
  __device__ const int32_t* token(int64_t i) const { return list_.tokens + position(i); }
  // The piece's offset in its row, in bytes.
  __device__ int64_t offset(int64_t i) const {
    return cut_.per_row == 1 ? 0 : (pair_number() + i * num_pairs()) % cut_.per_row * cut_.bytes;
  }
  __device__ int bytes(int64_t offset) const { return static_cast<int>(min(int64_t{cut_.bytes}, row_bytes_ - offset)); }

 private:
  __device__ int64_t pieces_before(int part) const { return int64_t{list_.begin[part] - first_} * cut_.per_row; }
  __device__ static int64_t own_of(int64_t pieces) {
    return pieces <= pair_number() ? 0 : (pieces - 1 - pair_number()) / num_pairs() + 1;
  }

  const TokenList& list_;
  const Pieces& cut_;
  int64_t row_bytes_;
  int first_;
  int64_t in_list_;
};

// Copies the pair's pieces into its ring. Called by one warp, whose lanes start the copies in turn.
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

// Counts the parts of which this pair has written all pieces. Used by one warp.
template <typename Way>
class PartCounter {
 public:
  __device__ PartCounter(const typename Way::Params& p, const PieceList& list)
      : p_(p), list_(list), end_(list.count_before(1)) {}

  // To be called before piece `i` is written; after the last piece, with its number plus one.
  __device__ __forceinline__ void reach(int64_t i) {
    while (Way::written(p_) != nullptr && part_ < Way::num_parts(p_) && i >= end_) {
      wait_stores_done();
      __syncwarp();
      if (threadIdx.x % kWarp == 0) {
        __threadfence();
        atomicAdd(&Way::written(p_)[part_], 1);
      }
      ++part_;
      if (part_ < Way::num_parts(p_)) end_ = list_.count_before(part_ + 1);
    }
  }

 private:
  const typename Way::Params& p_;
  const PieceList& list_;
  int part_ = 0;
  int64_t end_;  // of the part, in pieces of this pair
};

// Writes the pair's pieces to their targets, one lane per target. Called by one warp.
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
  PartCounter<Way> parts(p, list);
  for (int64_t batch = 0; batch < count; batch += kWarp) {
    const int buffer = static_cast<int>(batch / kWarp % 2);
    wait_words();
    __syncwarp();
    fetch_places(1 - buffer, batch + kWarp + lane);
    const int here = static_cast<int>(min(count - batch, int64_t{kWarp}));
    for (int j = 0; j < here; ++j) {
      const int place = lane < num_places ? smem.places[buffer][j][lane] : -1;
      const int64_t offset = list.offset(batch + j);
      parts.reach(batch + j);
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
  parts.reach(count);
}

// The first warp of each pair copies pieces into its ring, the second one writes them to their targets.
template <typename Way>
__global__ void __launch_bounds__(kThreads)
    move_rows_kernel(const __grid_constant__ typename Way::Params p, const __grid_constant__ Pieces cut) {
  extern __shared__ __align__(128) uint8_t rings[];
  __shared__ __align__(8) MoveSmem smem_of[kPairs];
  MoveSmem& smem = smem_of[this_pair()];
  const bool is_first_warp = threadIdx.x / kWarp % 2 == 0;
  if (threadIdx.x % (2 * kWarp) == 0) {
    for (int s = 0; s < cut.slots; ++s) {
      barrier_init(shared_address(&smem.full[s]), 1);
      barrier_init(shared_address(&smem.empty[s]), 1);
    }
    barrier_init_done();
  }
  __syncthreads();
  wait_for_previous_kernel();
  const PieceList list(p.list, Way::num_parts(p), cut, p.row_bytes);
  const uint32_t ring = shared_address(rings) + static_cast<uint32_t>(this_pair() * cut.slots * cut.bytes);
  if (list.count() == 0) {
    if (is_first_warp) PartCounter<Way>(p, list).reach(0);
  } else if (is_first_warp) {
    bring_pieces<Way>(p, cut, list, smem, ring);
  } else {
    write_pieces<Way>(p, cut, list, smem, ring);
  }
}

template <typename Way>
void launch_move(const typename Way::Params& params, cudaStream_t stream) {
  EPS_CUDA_REQUIRE(params.row_bytes > 0 && params.row_bytes % 16 == 0 && params.num_blocks > 0);
  const Pieces cut = cut_row(params.row_bytes);
  EPS_CUDA_REQUIRE(cut.slots > kWriteLag);
  const int smem = kPairs * cut.slots * cut.bytes;
  EPS_CUDA(cudaFuncSetAttribute(move_rows_kernel<Way>, cudaFuncAttributeMaxDynamicSharedMemorySize, smem));
  move_rows_kernel<Way>
      <<<static_cast<unsigned>(params.num_blocks), kThreads, static_cast<size_t>(smem), stream>>>(params, cut);
  EPS_CUDA_LAUNCHED(move_rows_kernel<Way>);
}

}  // namespace

void launch_pull_rows(const PullRowsParams& params, cudaStream_t stream) {
  EPS_CUDA_REQUIRE(params.places_per_token <= kMaxPlaces && params.num_parts > 0);
  launch_move<Pull>(params, stream);
}

void launch_push_rows(const PushRowsParams& params, cudaStream_t stream) { launch_move<Push>(params, stream); }

}  // namespace eps::cuda
