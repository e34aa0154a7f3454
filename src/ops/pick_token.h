// Picks tokens from logits in host memory.
#pragma once

#include <cstdint>
#include <span>

#include "ops/op_params.h"
#include "tensor/tensor.h"

namespace eps {

// What `draw` picks from the logits of one row, of which there is one or more; sums are f64.
// Edge  a logit of -infinity is never sampled; one that is NaN or +infinity, or a row of -infinity alone: kNoToken
int32_t pick_token(std::span<const float> logits, const TokenDraw& draw);

// OpSet::pick_tokens, row by row.
void pick_tokens_on_host(TensorView logits, std::span<const TokenDraw> draws, std::span<int32_t> tokens);

}  // namespace eps
