// Grouped-query attention over the cache by our own kernel: of decoding steps, and of prompts that cuDNN has no kernel
// for. A block keeps 16 rows, which are pairs of a new token and a query head, and all of them use the same keys.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/kernels/attention/gqa_dims.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

// The largest head dimension of the kernel. Larger heads would not leave their sums in registers.
inline constexpr int kMaxGqaHeadDim = 128;

// The only values that a captured graph may depend on. Contexts and cache pointers are read on the device and may
// change between replays.
struct GqaAttendShape {
  int num_sequences = 0;  // adjacent rows of q, as the sequences say
  int max_q_count = 0;    // maximum over the sequences
};

// What launch_gqa_attend() needs besides its operands.
struct GqaAttendWorkspace {
  size_t part_bytes = 0;
  size_t num_counters = 0;
};
GqaAttendWorkspace gqa_attend_workspace(const GqaAttendShape& shape, const GqaDims& dims);

struct GqaAttendParams {
  GqaDims dims;  // head_dim <= kMaxGqaHeadDim
  GqaAttendShape shape;
  const nv_bf16* q = nullptr;                 // [*, num_heads, head_dim], rotated
  const DeviceSequence* sequences = nullptr;  // [shape.num_sequences], device; every context >= q_count
  int layer = 0;                              // of the caches
  int window = 0;                             // a token attends to this many positions at most; 0: all
  const float* sinks = nullptr;               // [num_heads]: a logit more of each head, with a value of zero; or null
  nv_bf16* out = nullptr;                     // [*, num_heads, head_dim]; only the sequences' rows are written
  void* parts = nullptr;                      // part_bytes of the workspace, device, aligned to 16 bytes
  int32_t* arrived = nullptr;                 // its counters; zero before the first launch, and after every launch
};

// out[t, h] = Σ_c softmax_c(q[t, h] · k[c]) · v[c] over the positions c that the token attends to
//
// A context is divided among blocks, whose number depends on the shape and the dimensions alone, and among the warps of
// a block. Each adds up its part in f32, with probabilities rounded to bf16. The last block to end merges the parts, in
// a fixed order.
//
// Stream  one kernel; may be captured into a graph
// Edge    no sequences or no new tokens: nothing is launched
// Cost    reads each cache once for every 16 rows, from L2 after the first
void launch_gqa_attend(const GqaAttendParams& params, cudaStream_t stream);

}  // namespace eps::cuda
