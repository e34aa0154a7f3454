// Picks tokens from logits in host memory.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "ops/op_params.h"
#include "tensor/tensor.h"

namespace eps {

// The token that `params` samples from the logits of one row, which is not empty; sums are f64.
// Edge  a logit of -infinity is never sampled; one that is NaN or +infinity, or a row of -infinity alone: kNoToken
int32_t pick_token(std::span<const float> logits, const SampleParams& params);

// What else is cut from a row's candidates, in this order: top_h before top-k and top-p, the others after them. The
// best candidate always stays.
struct TokenCuts {
  std::optional<double> top_h;  // the first of the best 100 until their entropy exceeds this part of the 100's
  double min_p = 0.0;           // below this part of the best one's weight; 0: off
  double typical_p = 1.0;       // all but those of the most typical information that reach this mass; 1: off
  double epsilon_cutoff = 0.0;  // below this probability; 0: off
  double eta_cutoff = 0.0;      // below min(this, sqrt(this) * exp(-entropy)); 0: off

  bool operator==(const TokenCuts&) const = default;
};

// As pick_token, where a logit of minus infinity bars its token and others are numbers; then the cuts.
// Edge    every token barred: kNoToken
// Source  the warpers of transformers 5.24
int32_t sample_token(std::span<const float> logits, const SampleParams& params, const TokenCuts& cuts);

// Whether no logit is NaN or infinite.
bool all_finite(std::span<const float> logits);

// Whether a token can be sampled: no logit is NaN or +infinity, and not all are -infinity (tokens that are masked).
bool can_sample(std::span<const float> logits);

// OpSet::pick_tokens, row by row.
void pick_tokens_on_host(TensorView logits, std::span<const SampleParams> params, std::span<int32_t> tokens);

}  // namespace eps
