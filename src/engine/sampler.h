// Samples the tokens of one sequence.
#pragma once

#include <cstdint>
#include <span>

#include "base/random.h"
#include "engine/logits_processor.h"
#include "epsmoe/sampling.h"
#include "ops/op_params.h"
#include "ops/pick_token.h"

namespace eps {

// Errors  kUsage naming the field: a value outside its range, a token outside the vocabulary
void check_sampling(const SamplingOptions& options, int64_t vocab_size);

// Changes logits (LogitsProcessor), then temperature, cuts and one random number a token. The same seed and logits give
// the same tokens.
class Sampler {
 public:
  // Errors  as check_sampling, but for tokens outside the vocabulary, which are ignored
  explicit Sampler(const SamplingOptions& options, SequenceStart start = {});

  // Whether every op set can sample by itself what draw() describes. Otherwise sample() has to be called instead, with
  // logits in host memory.
  bool is_plain() const { return processor_.is_off() && cuts_ == TokenCuts{}; }

  // The next token's. Greedy ones do not depend on the seed.
  TokenDraw draw();
  // The next token of these logits, which are changed.
  // Edge    a logit that is NaN or infinite: kNoToken
  // Errors  kUsage: every token is barred
  int32_t sample(std::span<float> logits);

  // Tells a token that was sampled.
  void append(int32_t id) { processor_.append(id); }

 private:
  SamplingOptions options_;
  TokenCuts cuts_;
  LogitsProcessor processor_;
  SplitMix64 random_;
};

}  // namespace eps
