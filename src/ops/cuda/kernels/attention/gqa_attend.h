// Grouped-query attention over the cache by our own kernel: of decoding steps, and of prompts that cuDNN has no kernel
// for. A block keeps 16 rows, which are pairs of a new token and a query head, and all of them use the same keys.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/attention/gqa_dims.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

// The largest head dimension of the kernel. Larger heads would not leave their sums in registers.
inline constexpr int kMaxGqaHeadDim = 128;

struct GqaAttendParams {
  GqaDims dims;                               // head_dim <= kMaxGqaHeadDim
  int num_sequences = 0;                      // adjacent rows of q, as `sequences` says
  int max_q_count = 0;                        // maximum over the sequences
  const nv_bf16* q = nullptr;                 // [*, num_heads, head_dim], rotated
  const DeviceSequence* sequences = nullptr;  // [num_sequences], device; every context >= q_count
  int layer = 0;                              // of the caches
  int window = 0;                             // a token attends to this many positions at most; 0: all
  const float* sinks = nullptr;               // [num_heads]: a logit more of each head, with a value of zero; or null
  nv_bf16* out = nullptr;                     // [*, num_heads, head_dim]; only the sequences' rows are written
};

// out[t, h] = Σ_c softmax_c(q[t, h] · k[c]) · v[c] over the positions c that the token attends to
//
// A context is divided among the blocks of a cluster, whose number depends on num_sequences and max_q_count alone, and
// among the warps of a block. Each adds up its part in f32, with probabilities rounded to bf16; the parts are merged in
// a fixed order.
//
// Stream  one kernel; may be captured into a graph: contexts and cache pointers are read on the device
// Edge    no sequences or no new tokens: nothing is launched
// Cost    reads each cache once for every 16 rows, from L2 after the first
void launch_gqa_attend(const GqaAttendParams& params, cudaStream_t stream);

}  // namespace eps::cuda
