// Picks tokens from logits in host memory.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "ops/op_params.h"
#include "tensor/tensor.h"

namespace eps::ops {

// Samples a token with `params` from the logits of one row, of which there is at least one. Sums are f64.
// Edge  a token with a logit of -infinity is never sampled; the result is kNoToken if a logit is NaN or +infinity, or
//       if all are -infinity
int32_t pick_token(std::span<const float> logits, const SampleParams& params);

// Further restrictions of a row's candidates, in the order in which they are applied: top_h before top-k and top-p, the
// others after them. The best candidate is always kept.
struct TokenCuts {
  std::optional<double>
      top_h;               // the first of the best 100 until their entropy exceeds this fraction of that of all 100
  double min_p = 0.0;      // minimum weight as a fraction of the best candidate's; 0: off
  double typical_p = 1.0;  // the candidates of the most typical information that together have this mass; 1: off
  double epsilon_cutoff = 0.0;  // minimum probability; 0: off
  double eta_cutoff = 0.0;      // minimum probability is min(this, sqrt(this) * exp(-entropy)); 0: off

  bool operator==(const TokenCuts&) const = default;
};

// Like pick_token, with further restrictions. Tokens with a logit of -infinity are excluded; other logits must be
// numbers.
// Edge    kNoToken if all tokens are excluded
// Source  the warpers of transformers 5.24
int32_t sample_token(std::span<const float> logits, const SampleParams& params, const TokenCuts& cuts);

// Whether no logit is NaN or infinite.
bool all_finite(std::span<const float> logits);

// Whether a token can be sampled: no logit is NaN or +infinity, and not all are -infinity (excluded tokens).
bool can_sample(std::span<const float> logits);

// Implements OpSet::pick_tokens row by row.
void pick_tokens_on_host(TensorView logits, std::span<const SampleParams> params, std::span<int32_t> tokens);

}  // namespace eps::ops
