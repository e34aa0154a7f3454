#include "engine/sampler.h"

#include <cmath>

#include "base/error.h"
#include "ops/pick_token.h"

namespace eps {

void check_sampling(const SamplingOptions& options) {
  const auto refuse = [](const char* flag, double got, const char* wanted) {
    fail(ErrorKind::kUsage, flag,
         {.what = "not a sampling setting", .got = fmt::format("{}", got), .wanted = wanted, .hint = ""});
  };
  if (!(options.temperature >= 0.0) || !std::isfinite(options.temperature)) {
    refuse("--temperature", options.temperature, "a number from 0 (greedy)");
  }
  if (options.top_k < 0) refuse("--top-k", static_cast<double>(options.top_k), "0 (off) or more");
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) refuse("--top-p", options.top_p, "above 0, at most 1 (off)");
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) { check_sampling(options); }

TokenDraw Sampler::draw() {
  return {.temperature = options_.temperature,
          .top_k = options_.top_k,
          .top_p = options_.top_p,
          .uniform = random_.uniform()};
}

int32_t Sampler::pick(std::span<const float> logits) { return pick_token(logits, draw()); }

}  // namespace eps
