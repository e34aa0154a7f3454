#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace eps::engine {
namespace {

constexpr double kUnbounded = std::numeric_limits<double>::infinity();

void require(bool is_valid, const char* field, double got, const std::string& wanted) {
  if (is_valid) return;
  fail(ErrorKind::kUsage, field, {.what = "out of range", .got = fmt::format("{}", got), .wanted = wanted, .hint = ""});
}

void require_in(double least, double most, const char* field, double got, const std::string& wanted) {
  require(got >= least && got <= most && std::isfinite(got), field, got, wanted);
}

void require_count(const char* field, int64_t got) {
  require(got >= 0, field, static_cast<double>(got), "0 (off) or more");
}

void require_positive(const char* field, double got) {
  require(got > 0 && std::isfinite(got), field, got, "a number above 0; 1 is off");
}

void require_tokens(const char* field, std::span<const int32_t> ids, int64_t vocab_size) {
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocab_size) continue;
    fail(ErrorKind::kUsage, field,
         {.what = "not a token of the model",
          .got = std::to_string(id),
          .wanted = fmt::format("0 to {}", vocab_size - 1),
          .hint = ""});
  }
}

void require_sequence(const char* field, std::span<const int32_t> ids, int64_t vocab_size) {
  if (ids.empty()) {
    fail(ErrorKind::kUsage, field, {.what = "an empty list of tokens", .got = "", .wanted = "one or more", .hint = ""});
  }
  require_tokens(field, ids, vocab_size);
}

void check_numbers(const SamplingOptions& o) {
  require_in(0, kUnbounded, "temperature", o.temperature, "a number from 0 (greedy)");
  require(o.top_k >= -1, "top_k", static_cast<double>(o.top_k), "0 or -1 (off) or more");
  require_in(0, 1, "top_p", o.top_p, "0 to 1 (off)");
  if (o.top_h) require(*o.top_h > 0 && *o.top_h <= 1, "top_h", *o.top_h, "above 0, at most 1");
  require_in(0, 1, "min_p", o.min_p, "0 (off) to 1");
  require(o.typical_p > 0 && o.typical_p <= 1, "typical_p", o.typical_p, "above 0, at most 1 (off)");
  require(o.epsilon_cutoff >= 0 && o.epsilon_cutoff < 1, "epsilon_cutoff", o.epsilon_cutoff, "0 (off), below 1");
  require(o.eta_cutoff >= 0 && o.eta_cutoff < 1, "eta_cutoff", o.eta_cutoff, "0 (off), below 1");
  require_positive("repetition_penalty", o.repetition_penalty);
  require_positive("encoder_repetition_penalty", o.encoder_repetition_penalty);
  require_in(-2, 2, "frequency_penalty", o.frequency_penalty, "-2 to 2; 0 is off");
  require_in(-2, 2, "presence_penalty", o.presence_penalty, "-2 to 2; 0 is off");
  require_count("no_repeat_ngram_size", o.no_repeat_ngram_size);
  require_count("encoder_no_repeat_ngram_size", o.encoder_no_repeat_ngram_size);
  require_count("min_length", o.min_length);
  require_count("min_tokens", o.min_tokens);
  if (const auto& decay = o.exponential_decay_length_penalty) {
    require_count("exponential_decay_length_penalty", decay->start);
    require_positive("exponential_decay_length_penalty", decay->factor);
  }
}

}  // namespace

void check_sampling(const SamplingOptions& o, int64_t vocab_size) {
  check_numbers(o);
  for (const auto& word : o.bad_words_ids) require_sequence("bad_words_ids", word, vocab_size);
  for (const SequenceBias& b : o.sequence_bias) {
    require_sequence("sequence_bias", b.ids, vocab_size);
    require(!std::isnan(b.bias) && b.bias != kUnbounded, "sequence_bias", b.bias, "a number or minus infinity");
  }
  if (o.forced_bos_token_id) require_tokens("forced_bos_token_id", std::span(&*o.forced_bos_token_id, 1), vocab_size);
  require_tokens("forced_eos_token_ids", o.forced_eos_token_ids, vocab_size);
}

Sampler::Sampler(const SamplingOptions& options, SequenceStart start)
    : options_(options),
      cuts_{options.top_h, options.min_p, options.typical_p, options.epsilon_cutoff, options.eta_cutoff},
      processor_(options, std::move(start)),
      random_(options.seed) {
  check_numbers(options);
  if (options_.temperature == 0.0) cuts_ = {};  // the cuts always keep the most likely token
}

ops::SampleParams Sampler::next_params() {
  const double number = random_.uniform();
  if (options_.top_p == 0.0) return {.temperature = 0.0, .uniform = number};  // op sets require a top_p above 0
  return {.temperature = options_.temperature,
          .top_k = std::max<int64_t>(0, options_.top_k),
          .top_p = options_.top_p,
          .uniform = number};
}

int32_t Sampler::sample(std::span<float> logits) {
  const ops::SampleParams params = next_params();
  if (is_plain()) return ops::pick_token(logits, params);
  if (!ops::can_sample(logits)) return ops::kNoToken;
  processor_.process(logits);
  const int32_t token = ops::sample_token(logits, params, cuts_);
  if (token == ops::kNoToken) {
    fail(ErrorKind::kUsage, "sampling",
         {.what = "the settings mask all tokens",
          .got = "",
          .wanted = "",
          .hint = "fewer suppressed tokens, or a smaller `min_tokens` or a larger `no_repeat_ngram_size`"});
  }
  return token;
}

}  // namespace eps::engine
