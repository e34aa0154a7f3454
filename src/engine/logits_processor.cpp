#include "engine/logits_processor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace eps::engine {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

bool changes_logits(const SamplingOptions& o) {
  return !o.sequence_bias.empty() || o.encoder_repetition_penalty != 1.0 || o.repetition_penalty != 1.0 ||
         o.frequency_penalty != 0.0 || o.presence_penalty != 0.0 || o.no_repeat_ngram_size > 0 ||
         o.encoder_no_repeat_ngram_size > 0 || !o.bad_words_ids.empty() || o.min_length > 0 || o.min_tokens > 0 ||
         o.forced_bos_token_id || !o.forced_eos_token_ids.empty() || o.exponential_decay_length_penalty ||
         !o.suppress_tokens.empty() || !o.begin_suppress_tokens.empty();
}

// Calls f(logit) for those `ids` that are in the vocabulary.
template <typename F>
void for_logits(std::span<float> logits, std::span<const int32_t> ids, const F& f) {
  for (const int32_t id : ids) {
    if (id >= 0 && id < std::ssize(logits)) f(logits[static_cast<size_t>(id)]);
  }
}

void mask(std::span<float> logits, std::span<const int32_t> ids) {
  for_logits(logits, ids, [](float& logit) { logit = kMasked; });
}

// Applies the penalty once to each token, however often it occurs. Computed in f32, as in transformers.
void penalize_repetition(std::span<float> logits, std::span<const int32_t> ids, double penalty) {
  if (penalty == 1.0) return;
  std::vector<int32_t> unique(ids.begin(), ids.end());
  std::ranges::sort(unique);
  unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
  const auto p = static_cast<float>(penalty);
  for_logits(logits, unique, [p](float& logit) { logit = logit < 0 ? logit * p : logit / p; });
}

bool ends_with(std::span<const int32_t> ids, std::span<const int32_t> tail) {
  return tail.size() <= ids.size() && std::ranges::equal(ids.last(tail.size()), tail);
}

void mask_all_but(std::span<float> logits, std::span<const int32_t> ids) {
  std::ranges::fill(logits, kMasked);
  for_logits(logits, ids, [](float& logit) { logit = 0.0F; });
}

}  // namespace

LogitsProcessor::LogitsProcessor(const SamplingOptions& options, SequenceStart start)
    : options_(options),
      ids_(std::move(start.prompt_ids)),
      prompt_len_(std::ssize(ids_)),
      eos_ids_(std::move(start.eos_ids)),
      max_tokens_(start.max_tokens),
      is_off_(!changes_logits(options)) {
  // As in transformers, an end-of-text token alone is not accepted as a bad word: no text could end.
  std::erase_if(options_.bad_words_ids, [this](const std::vector<int32_t>& word) {
    return word.size() == 1 && std::ranges::find(eos_ids_, word.front()) != eos_ids_.end();
  });
}

void LogitsProcessor::process(std::span<float> logits) const {
  if (is_off_) return;
  const std::span<const int32_t> ids = ids_;
  const auto prompt = ids.first(static_cast<size_t>(prompt_len_));
  add_biases(logits);
  if (options_.encoder_repetition_penalty != 1.0) {
    penalize_repetition(logits, prompt, 1.0 / options_.encoder_repetition_penalty);
  }
  penalize_repetition(logits, ids, options_.repetition_penalty);
  penalize(logits);
  mask_ngrams(logits, options_.no_repeat_ngram_size, ids);
  mask_ngrams(logits, options_.encoder_no_repeat_ngram_size, prompt);
  mask_words(logits);
  hold_back_eos(logits);
  force(logits);
  if (const auto& decay = options_.exponential_decay_length_penalty; decay && num_output() > decay->start) {
    const double growth = std::pow(decay->factor, static_cast<double>(num_output() - decay->start)) - 1;
    for_logits(logits, eos_ids_, [growth](float& logit) {
      if (std::isfinite(logit)) logit += std::abs(logit) * static_cast<float>(growth);
    });
  }
  mask(logits, options_.suppress_tokens);
  // A forced first token counts as part of the prompt, so the next one is the first output token.
  const int64_t begin = prompt_len_ > 1 || !options_.forced_bos_token_id ? 0 : 1;
  if (num_output() == begin) mask(logits, options_.begin_suppress_tokens);
}

void LogitsProcessor::add_biases(std::span<float> logits) const {
  for (const SequenceBias& b : options_.sequence_bias) {
    const std::span<const int32_t> all = b.ids;
    if (!ends_with(ids_, all.first(all.size() - 1))) continue;
    for_logits(logits, all.last(1), [&b](float& logit) { logit += static_cast<float>(b.bias); });
  }
}

void LogitsProcessor::penalize(std::span<float> logits) const {
  if (options_.frequency_penalty == 0.0 && options_.presence_penalty == 0.0) return;
  std::map<int32_t, int64_t> counts;
  for (const int32_t id : std::span(ids_).subspan(static_cast<size_t>(prompt_len_))) ++counts[id];
  for (const auto& [id, count] : counts) {
    for_logits(logits, std::span(&id, 1), [&, times = count](float& logit) {
      logit -= static_cast<float>(options_.frequency_penalty) * static_cast<float>(times);
      logit -= static_cast<float>(options_.presence_penalty);
    });
  }
}

// Masks each token that would complete an n-gram of `size` tokens that `seen` contains.
void LogitsProcessor::mask_ngrams(std::span<float> logits, int64_t size, std::span<const int32_t> seen) const {
  if (size <= 0 || std::ssize(seen) < size || std::ssize(ids_) + 1 < size) return;
  const auto length = static_cast<size_t>(size) - 1;
  const auto tail = std::span(ids_).last(length);
  for (size_t i = 0; i + length < seen.size(); ++i) {
    if (std::ranges::equal(seen.subspan(i, length), tail)) mask(logits, seen.subspan(i + length, 1));
  }
}

void LogitsProcessor::mask_words(std::span<float> logits) const {
  for (const std::vector<int32_t>& word : options_.bad_words_ids) {
    const std::span<const int32_t> all = word;
    if (ends_with(ids_, all.first(all.size() - 1))) mask(logits, all.last(1));
  }
}

void LogitsProcessor::hold_back_eos(std::span<float> logits) const {
  const int64_t least = options_.min_tokens > 0 ? options_.min_tokens : options_.min_length - prompt_len_;
  if (num_output() < least) mask(logits, eos_ids_);
}

void LogitsProcessor::force(std::span<float> logits) const {
  if (options_.forced_bos_token_id && std::ssize(ids_) == 1) {
    mask_all_but(logits, std::span(&*options_.forced_bos_token_id, 1));
  }
  if (!options_.forced_eos_token_ids.empty() && num_output() == max_tokens_ - 1) {
    mask_all_but(logits, options_.forced_eos_token_ids);
  }
}

}  // namespace eps::engine
