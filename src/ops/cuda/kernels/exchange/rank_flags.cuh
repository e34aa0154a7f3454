// The device side of rank_flags.h.
#pragma once

#include "ops/cuda/kernels/exchange/rank_flags.h"

namespace eps::cuda {

__device__ __forceinline__ uint32_t load_flag(const uint32_t* p) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(__cvta_generic_to_global(p)) : "memory");
  return value;
}
__device__ __forceinline__ void store_flag(uint32_t* p, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(value) : "memory");
}
__device__ __forceinline__ uint64_t now_in_ns() {
  uint64_t ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
  return ns;
}
// A word that other threads may store at any time.
__device__ __forceinline__ uint32_t peek(const uint32_t* p) { return *static_cast<const volatile uint32_t*>(p); }

// Waits until `rank` has stored `goal`. False: this GPU gave up, for whatever reason.
__device__ __forceinline__ bool wait_for_rank(const RankFlags& f, RankFlag flag, int rank, uint32_t goal) {
  // How often the other words are read; those of the host take more than a microsecond.
  constexpr uint64_t kCheckNs = 50'000;
  const uint32_t* word = &f.own->flags[static_cast<int>(flag)][rank];
  const uint64_t begin = now_in_ns();
  uint64_t next_check = begin + kCheckNs;
  while (static_cast<int32_t>(load_flag(word) - goal) < 0) {
    const uint64_t now = now_in_ns();
    if (now < next_check) continue;
    next_check = now + kCheckNs;
    uint32_t why = 0;
    if (peek(f.is_aborted) != 0) {
      why = FlagFailure::kAborted;
    } else if (now - begin > kFlagTimeoutNs) {
      why = FlagFailure::code(flag, rank);
    }
    if (why != 0) {
      // The first reason counts.
      if (atomicExch(&f.own->gave_up, 1U) == 0) store_flag(f.failure, why);
      return false;
    }
    if (peek(&f.own->gave_up) != 0) return false;
  }
  return true;
}

// Waits until all other ranks have reached the flag in this layer; what they stored before that is then visible to the
// whole block. Called by all threads of a block of at least kMaxRanks. False: this GPU gave up.
__device__ __forceinline__ bool wait_for_ranks(const RankFlags& f, RankFlag flag) {
  const auto rank = static_cast<int>(threadIdx.x);
  bool ok = peek(&f.own->gave_up) == 0;
  if (ok && rank < f.num_ranks && rank != f.rank) ok = wait_for_rank(f, flag, rank, peek(&f.own->num_layers) + 1);
  return __syncthreads_and(static_cast<int>(ok)) != 0;
}

// Returns whether all blocks of the kernel have got here, true only in the last one, for which the stores of the others
// are then visible. Called by all threads of a block.
__device__ __forceinline__ bool is_last_block(uint32_t* arrived) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence_system();  // the block's stores, whose visibility the flag implies, may be in another GPU's memory
    is_last = atomicAdd(arrived, 1U) == gridDim.x - 1;
    if (is_last) {
      *arrived = 0;
      __threadfence_system();
    }
  }
  __syncthreads();
  return is_last;
}

// Tells all other ranks that this one has reached the flag in this layer, when the last block of the kernel gets here.
// Called by all threads of every block.
__device__ __forceinline__ void tell_ranks(const RankFlags& f, RankFlag flag) {
  if (!is_last_block(&f.own->arrived[static_cast<int>(flag)])) return;
  const auto rank = static_cast<int>(threadIdx.x);
  if (rank >= f.num_ranks || rank == f.rank || peek(&f.own->gave_up) != 0) return;
  store_flag(&f.of[rank]->flags[static_cast<int>(flag)][f.rank], peek(&f.own->num_layers) + 1);
}

// Ends the layer when the last block of its last kernel gets here.
__device__ __forceinline__ void end_layer(const RankFlags& f) {
  if (is_last_block(&f.own->arrived[kNumRankFlags]) && threadIdx.x == 0) ++f.own->num_layers;
}

}  // namespace eps::cuda
