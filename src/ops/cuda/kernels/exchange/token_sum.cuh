// The order in which a token's expert outputs are added up on GPUs, the same for every number of ranks.
//
// Experts are cut into kSumSegments ranges of equal size. Inside a range outputs are added in ascending order of
// experts, in f32; the ranges' sums are the leaves of a binary tree. Every node below the root is rounded to bf16:
// where the ranks' experts are whole nodes (1, 2, 4 or 8 ranks), that is the type in which a rank's part of the sum
// travels, so one rank alone arrives at the same bits. A node with one child is that child. For other numbers of ranks
// each rank's part is one leaf, and leaves are added in order.
#pragma once

#include "ops/cuda/kernels/device/device_vector.h"

namespace eps::cuda {

inline constexpr int kSumLevels = 3;
inline constexpr int kSumSegments = 1 << kSumLevels;

__device__ __forceinline__ float round_to_bf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

// Adds up one token's nodes in ascending order, kUnit elements a thread. What is added where is the same for all
// threads of a warp, so nothing diverges. Levels are template parameters so that everything stays in registers.
template <int kUnit>
class TokenSum {
 public:
  // A finished node of level kLevel: `index` counts the nodes of that level. Nodes come in ascending order and do not
  // overlap.
  template <int kLevel>
  __device__ __forceinline__ void add(int index, const float (&x)[kUnit]) {
    close_before<0, kLevel>(index);
    float node[kUnit];
#pragma unroll
    for (int c = 0; c < kUnit; ++c) node[c] = x[c];
    insert<kLevel>(index, node);
  }
  // The root, in f32; 0 where nothing was added.
  __device__ __forceinline__ void finish(float (&out)[kUnit]) {
    close_before<0, kSumLevels>(1);
#pragma unroll
    for (int c = 0; c < kUnit; ++c) out[c] = has_root_ ? root_[c] : 0.0F;
  }

 private:
  // Left children whose right sibling can no longer come, as the next node is `index` of kLevel, take their parent's
  // place.
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

  int left_[kSumLevels] = {-1, -1, -1};  // index of the left child that waits at each level; -1: none
  float value_[kSumLevels][kUnit];
  float root_[kUnit];
  bool has_root_ = false;
};

// The segment of an expert.
__host__ __device__ constexpr int segment_of(int expert, int num_experts) {
  return static_cast<int>(int64_t{expert} * kSumSegments / num_experts);
}

// The level of the nodes that are a rank's whole part of the tree; -1: the ranks' experts are not whole nodes.
__host__ __device__ constexpr int level_of_ranks(int num_ranks) {
  for (int level = 0; level <= kSumLevels; ++level) {
    if (num_ranks == kSumSegments >> level) return level;
  }
  return -1;
}

}  // namespace eps::cuda
