// Sampling a token from each row of logits with the settings of an eps::SampleParams.
//
// Contract: rows/norm.h. A row's token does not depend on the other rows and is the same every time, because weights
// are summed as integers.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/op_params.h"

namespace eps::cuda {

inline constexpr int64_t kMaxPickVocab = int64_t{1} << 30;

struct PickTokensParams {
  const float* logits = nullptr;         // [rows, vocab]
  const SampleParams* params = nullptr;  // [rows], in device memory
  int64_t rows = 0;
  int64_t vocab = 0;          // 1 to kMaxPickVocab
  int32_t* tokens = nullptr;  // out [rows]
};

// tokens[i] = the token that params[i] samples from row i; kNoToken where a logit is NaN or +infinity, or all are
// -infinity. A token whose logit is -infinity is never sampled.
//
// A weight is f32 with a relative error of at most (3·|ln weight| + 4)·2^-24, rounded to a multiple of 2^-k, where k is
// the largest for which the sum of `vocab` weights cannot overflow: a token with less than half of that is never
// sampled. Errors  kInternal for a vocabulary of no token or more than kMaxPickVocab
void launch_pick_tokens(const PickTokensParams& params, cudaStream_t stream);

}  // namespace eps::cuda
