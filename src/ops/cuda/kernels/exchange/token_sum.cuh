// Defines the order in which GPUs add up a token's expert outputs, which is the same for every number of ranks.
//
// The experts are divided into kSumSegments ranges of equal size. Within a range, outputs are added in f32 in ascending
// order of experts. The sums of the ranges are the leaves of a binary tree, in which every node below the root is
// rounded to bf16. With 1, 2, 4 or 8 ranks, each rank's experts form a whole node, and bf16 is also the type in which
// ranks send partial sums, so a single rank computes the same bits. A node with one child has the value of that child.
// With other numbers of ranks, each rank's partial sum is one leaf, and the leaves are added in order.
#pragma once

#include "ops/cuda/kernels/device/device_vector.h"

namespace eps::cuda {

inline constexpr int kSumLevels = 3;
inline constexpr int kSumSegments = 1 << kSumLevels;

__device__ __forceinline__ float round_to_bf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

// Adds up one token's nodes in ascending order, kUnit elements per thread. Control flow is the same in all threads of a
// warp, so it never diverges. Levels are template parameters so that all values stay in registers.
template <int kUnit>
class TokenSum {
 public:
  // Adds a complete node of level kLevel; `index` is its number within that level. Nodes must be added in ascending
  // order and must not overlap.
  template <int kLevel>
  __device__ __forceinline__ void add(int index, const float (&x)[kUnit]) {
    close_before<0, kLevel>(index);
    float node[kUnit];
#pragma unroll
    for (int c = 0; c < kUnit; ++c) node[c] = x[c];
    insert<kLevel>(index, node);
  }
  // Returns the root in f32, or 0 if nothing was added.
  __device__ __forceinline__ void finish(float (&out)[kUnit]) {
    close_before<0, kSumLevels>(1);
#pragma unroll
    for (int c = 0; c < kUnit; ++c) out[c] = has_root_ ? root_[c] : 0.0F;
  }

 private:
  // The next node is `index` of kLevel. Left children whose right sibling therefore cannot follow any more become the
  // value of their parent.
  template <int kAt, int kLevel>
  __device__ __forceinline__ void close_before(int index) {
    if constexpr (kAt < kSumLevels) {
      bool sibling_comes = false;
      if constexpr (kAt >= kLevel) sibling_comes = (index >> (kAt - kLevel)) == left_[kAt] + 1;
      if (left_[kAt] >= 0 && !sibling_comes) {
        const int parent = left_[kAt] / 2;
        left_[kAt] = -1;
        float node[kUnit];
#pragma unroll
        for (int c = 0; c < kUnit; ++c) node[c] = value_[kAt][c];
        insert<kAt + 1>(parent, node);
      }
      close_before<kAt + 1, kLevel>(index);
    }
  }

  template <int kLevel>
  __device__ __forceinline__ void insert(int index, float (&node)[kUnit]) {
    if constexpr (kLevel == kSumLevels) {
      has_root_ = true;
#pragma unroll
      for (int c = 0; c < kUnit; ++c) root_[c] = node[c];
    } else if (index % 2 == 0) {
      left_[kLevel] = index;
#pragma unroll
      for (int c = 0; c < kUnit; ++c) value_[kLevel][c] = node[c];
    } else {
      if (left_[kLevel] == index - 1) {
        left_[kLevel] = -1;
#pragma unroll
        for (int c = 0; c < kUnit; ++c) {
          node[c] = value_[kLevel][c] + node[c];
          if constexpr (kLevel + 1 < kSumLevels) node[c] = round_to_bf16(node[c]);
        }
      }
      insert<kLevel + 1>(index / 2, node);
    }
  }

  int left_[kSumLevels] = {-1, -1, -1};  // index of the left child without a sibling so far at each level; -1: none
  float value_[kSumLevels][kUnit];
  float root_[kUnit];
  bool has_root_ = false;
};

// The index of the segment that contains an expert.
__host__ __device__ constexpr int segment_of(int expert, int num_experts) {
  return static_cast<int>(int64_t{expert} * kSumSegments / num_experts);
}

// The level at which each rank's experts are one node; -1 if they do not form a whole node.
__host__ __device__ constexpr int level_of_ranks(int num_ranks) {
  for (int level = 0; level <= kSumLevels; ++level) {
    if (num_ranks == kSumSegments >> level) return level;
  }
  return -1;
}

}  // namespace eps::cuda
