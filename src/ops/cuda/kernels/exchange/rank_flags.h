// Flags by which the GPUs of several ranks wait for each other's work without their hosts.
//
// A flag is a word in the memory of the rank that waits. The rank that it waits for stores the number of the layer in
// it, which grows with every layer. All layers of a rank run on one stream.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/exchange/row_slots.h"

namespace eps::cuda {

// What a rank waits for.
enum class RankFlag : uint32_t { kTokens, kSums };
inline constexpr int kNumRankFlags = 2;

// A GPU gives up waiting for another rank after this time. It is longer than any layer, and short enough that a rank
// that hangs is named within 10 s.
inline constexpr uint64_t kFlagTimeoutNs = 5'000'000'000;

// The rank's words in its own device memory.
struct FlagWords {
  uint32_t flags[kNumRankFlags][kMaxRanks];  // by the rank that stores them
  uint32_t num_layers;                       // that have ended
  uint32_t gave_up;                          // 1: no kernel waits any more
  uint32_t arrived[kNumRankFlags + 1];       // blocks of the current kernel that have ended; 0 between kernels
};

// A word in the host's memory, in which a GPU that gave up stores the reason.
struct FlagFailure {
  static constexpr uint32_t kAborted = ~0U;  // the communicator was aborted
  __host__ __device__ static constexpr uint32_t code(RankFlag flag, int rank) {
    return 1U + static_cast<uint32_t>(flag) * kMaxRanks + static_cast<uint32_t>(rank);
  }
  __host__ __device__ static constexpr RankFlag flag(uint32_t code) {
    return static_cast<RankFlag>((code - 1) / kMaxRanks);
  }
  __host__ __device__ static constexpr int rank(uint32_t code) { return static_cast<int>((code - 1) % kMaxRanks); }
};

// Passed to kernels by value.
struct RankFlags {
  FlagWords* own = nullptr;
  FlagWords* of[kMaxRanks] = {};         // of all ranks
  uint32_t* failure = nullptr;           // in host memory; 0: none
  const uint32_t* is_aborted = nullptr;  // in host memory
  int num_ranks = 1;
  int rank = 0;
};

}  // namespace eps::cuda
