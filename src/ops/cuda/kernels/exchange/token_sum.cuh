// Defines the order in which GPUs add up a token's expert outputs, which is the same for every number of ranks.
//
// The experts are divided into kSumSegments ranges of equal size. Within a range, outputs are added in f32 in ascending
// order of experts. The sums of the ranges are the leaves of a binary tree, in which every node below the root is
// rounded to bf16. With 1, 2, 4 or 8 ranks, each rank's experts form a whole node, and bf16 is also the type in which
// ranks send partial sums, so a single rank computes the same bits. A node with one child has the value of that child.
// With other numbers of ranks, each rank's partial sum is one leaf, and the leaves are added in order.
#pragma once

#include <climits>

#include "ops/cuda/kernels/device/device_vector.h"

namespace eps::cuda {

inline constexpr int kSumLevels = 3;
inline constexpr int kSumSegments = 1 << kSumLevels;

// kChunks vectors of values of a node below the root.
template <int kChunks>
struct SumNode {
  static constexpr int kPairs = kChunks * kVector / 2;
  __nv_bfloat162 pair[kPairs];

  __device__ __forceinline__ void set(int chunk, const uint4& raw) {
    const uint32_t words[kVector / 2] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) {
      pair[chunk * (kVector / 2) + i] = *reinterpret_cast<const __nv_bfloat162*>(&words[i]);
    }
  }
  __device__ __forceinline__ void round(const float (&x)[kChunks * kVector]) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) pair[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
  }
  __device__ __forceinline__ void add_to(float (&sum)[kChunks * kVector]) const {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const float2 values = __bfloat1622float2(pair[i]);
      sum[2 * i] += values.x;
      sum[2 * i + 1] += values.y;
    }
  }
};

// Adds up one token's nodes in ascending order. Control flow depends only on the nodes' positions, which are the same
// in all threads of a warp, so it never diverges. Left children without their right sibling are kept in registers,
// which is why levels are unrolled.
template <int kChunks>
class TokenSum {
 public:
  using Node = SumNode<kChunks>;

  // Adds a complete node of `level` that begins at `segment`; the next node that will be added begins at
  // `next_segment` (INT_MAX: this is the last one). Each merge of two bf16 values is rounded once.
  __device__ __forceinline__ void add(int level, int segment, int next_segment, Node node) {
    bool is_kept = false;  // the node waits for its sibling
#pragma unroll
    for (int l = 0; l < kSumLevels; ++l) {
      const int index = segment >> l;
      if (is_kept || l < level) continue;
      if (index % 2 == 0) {
        // Without a sibling, the parent has the value of this node.
        is_kept = next_segment >> l == index + 1;
        if (is_kept) held_[l] = node;
      } else if ((is_held_ >> l & 1U) != 0) {
        is_held_ &= ~(1U << l);
        if (l + 1 < kSumLevels) {
#pragma unroll
          for (int i = 0; i < Node::kPairs; ++i) node.pair[i] = __hadd2(held_[l].pair[i], node.pair[i]);
        } else {
          held_[l].add_to(root_);  // the root is not rounded
        }
      }
      if (is_kept) is_held_ |= 1U << l;
    }
    if (!is_kept) node.add_to(root_);
  }
  // The sum of all nodes in f32, 0 without nodes.
  __device__ __forceinline__ const float (&root() const)[kChunks * kVector] { return root_; }

 private:
  unsigned is_held_ = 0;  // by level: a left child waits for its sibling, which is the next node of that level
  Node held_[kSumLevels];
  float root_[kChunks * kVector] = {};
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
