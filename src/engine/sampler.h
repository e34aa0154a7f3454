// The draws of a sequence's tokens.
#pragma once

#include <cstdint>
#include <span>

#include "base/random.h"
#include "epsmoe/engine.h"
#include "ops/op_params.h"

namespace eps {

// Errors  kUsage naming the flag: temperature negative or not finite, top_k negative, top_p outside (0, 1]
void check_sampling(const SamplingOptions& options);

// Temperature, then top-k, then top-p, then a draw (TokenDraw). The same seed and logits give the same tokens.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  // The next token's. Greedy ones do not depend on the seed.
  TokenDraw draw();
  // The next token of these logits, in host memory. Edge  as pick_token
  int32_t pick(std::span<const float> logits);

 private:
  SamplingOptions options_;
  SplitMix64 random_;
};

}  // namespace eps
