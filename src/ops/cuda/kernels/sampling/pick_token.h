// Picking a token from each row of logits, as eps::TokenDraw says.
//
// Order, Stream, Edge: as in elementwise.h. A row's token does not depend on the other rows, and is the same every
// time: sums of weights are integers.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/op_params.h"

namespace eps::cuda {

inline constexpr int64_t kMaxPickVocab = int64_t{1} << 30;

// tokens [rows] int32 = what draws [rows] (device memory) pick from logits [rows, vocab] f32; kNoToken where a logit is
// NaN or infinite.
// A weight is f32, off by (3·|ln weight| + 4)·2^-24 of itself at most, and rounded to a multiple of 2^-k, the largest k
// for which `vocab` of them cannot overflow: below half of that a token is never drawn.
// Errors  kInternal for a vocabulary of no token or more than kMaxPickVocab
void pick_tokens(const float* logits, const TokenDraw* draws, int64_t rows, int64_t vocab, int32_t* tokens,
                 cudaStream_t stream);

}  // namespace eps::cuda
