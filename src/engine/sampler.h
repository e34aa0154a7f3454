// Samples the tokens of one sequence.
#pragma once

#include <cstdint>
#include <span>

#include "base/random.h"
#include "engine/logits_processor.h"
#include "epsmoe/sampling.h"
#include "ops/op_params.h"
#include "ops/pick_token.h"

namespace eps::engine {

// Errors  kUsage naming the field: a value outside its range, a token outside the vocabulary
void check_sampling(const SamplingOptions& options, int64_t vocab_size);

// Processes the logits (LogitsProcessor), applies temperature and cuts, and samples with one random number per token.
// The same seed and logits give the same tokens.
class Sampler {
 public:
  // Errors  as check_sampling, but for tokens outside the vocabulary, which are ignored
  explicit Sampler(const SamplingOptions& options, SequenceStart start = {});

  // Whether next_params() describes the sampling completely, so that the op set can do it. Otherwise sample() has to be
  // called instead, with logits in host memory.
  bool is_plain() const { return processor_.is_off() && cuts_ == ops::TokenCuts{}; }

  // The parameters for sampling the next token; consumes one random number. Greedy sampling does not depend on the
  // seed.
  ops::SampleParams next_params();
  // Samples the next token from `logits`, which are modified.
  // Edge    a logit that is NaN or infinite: kNoToken
  // Errors  kUsage: all tokens are masked
  int32_t sample(std::span<float> logits);

  // Records a token that was sampled, for the penalties of later ones.
  void append(int32_t id) { processor_.append(id); }

 private:
  SamplingOptions options_;
  ops::TokenCuts cuts_;
  LogitsProcessor processor_;
  SplitMix64 random_;
};

}  // namespace eps::engine
