// Samples a token from each row of logits with the settings of an eps::ops::SampleParams.
//
// Contract: rows/norm.h. A row's token does not depend on other rows, and it is reproducible because weights are summed
// as integers.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/op_params.h"

namespace eps::cuda {

inline constexpr int64_t kMaxPickVocab = int64_t{1} << 30;

struct PickTokensParams {
  const float* logits = nullptr;              // [rows, vocab]
  const ops::SampleParams* params = nullptr;  // [rows], in device memory
  int64_t rows = 0;
  int64_t vocab = 0;          // 1 to kMaxPickVocab
  int32_t* tokens = nullptr;  // out [rows]
};

// tokens[i] = the token that is sampled from row i with params[i]; kNoToken if a logit is NaN or +infinity, or if all
// are -infinity. A token with a logit of -infinity is never sampled.
//
// A weight is an f32 with a relative error of at most (3·|ln weight| + 4)·2^-24, rounded to a multiple of 2^-k. k is
// the largest number for which the sum of `vocab` weights cannot overflow; a token whose weight is less than half of
// 2^-k is never sampled.
//
// Errors  kInternal for an empty vocabulary or one with more than kMaxPickVocab tokens
void launch_pick_tokens(const PickTokensParams& params, cudaStream_t stream);

}  // namespace eps::cuda
