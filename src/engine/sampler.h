// Picks the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "epsmoe/engine.h"

namespace eps {

// Errors  kUsage naming the flag: temperature negative or not finite, top_k negative, top_p outside (0, 1]
void check_sampling(const SamplingOptions& options);

// Temperature, then top-k, then top-p, then a draw. The same seed and logits give the same tokens.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  // Edge  temperature 0: the largest logit, the lowest id among equals
  int32_t pick(std::span<const float> logits);

 private:
  double uniform();  // [0, 1)

  struct Candidate {
    float logit;
    int32_t id;
  };
  SamplingOptions options_;
  uint64_t state_;
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
};

}  // namespace eps
