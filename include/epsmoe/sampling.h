// How the next token is sampled. The default of every option is neutral, so only options that are set have an effect.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace eps {

// Adds `bias` to the logit of the last token of `ids` wherever the other ones immediately precede it.
struct SequenceBias {
  std::vector<int32_t> ids;
  double bias = 0.0;
};

// Makes the end of the text ever more likely: n tokens after output token `start`, |logit| · (factor^n - 1) is added to
// the logits of end-of-text tokens.
struct LengthDecay {
  int64_t start = 0;
  double factor = 1.0;
};

// Names are those of transformers' GenerationConfig, or else those of vLLM's SamplingParams. The logits are first
// changed by the second group, in its order; unless the temperature is 0, the temperature and then the first group are
// applied.
struct SamplingOptions {
  double temperature = 1.0;  // 0: greedy
  int64_t top_k = 0;         // 0 or -1: off
  double top_p = 1.0;        // 1: off; 0: the most likely token alone
  uint64_t seed = 0;

  // Filters, applied in this order: top_h precedes top_k and top_p, the others follow them.
  std::optional<double> top_h = {};  // fraction of the entropy to keep
  double min_p = 0.0;                // minimum probability relative to the largest one; 0: off
  double typical_p = 1.0;            // probability mass of locally typical tokens to keep; 1: off
  double epsilon_cutoff = 0.0;       // minimum probability; 0: off
  double eta_cutoff = 0.0;           // the same, but lower where the distribution is flat; 0: off

  // Changes of logits, applied in this order.
  std::vector<SequenceBias> sequence_bias = {};
  double encoder_repetition_penalty = 1.0;   // above 1: favours tokens of the prompt; 1: off
  double repetition_penalty = 1.0;           // above 1: penalises tokens of the prompt and the output; 1: off
  double frequency_penalty = 0.0;            // subtracted once for every occurrence of a token in the output
  double presence_penalty = 0.0;             // subtracted once if the token occurs in the output
  int64_t no_repeat_ngram_size = 0;          // 0: off
  int64_t encoder_no_repeat_ngram_size = 0;  // n-grams of the prompt only; 0: off
  std::vector<std::vector<int32_t>> bad_words_ids = {};
  int64_t min_length = 0;                           // prompt and output; min_tokens, where set, replaces it
  int64_t min_tokens = 0;                           // output tokens before an end-of-text token is allowed
  std::optional<int32_t> forced_bos_token_id = {};  // after a prompt of one token
  std::vector<int32_t> forced_eos_token_ids = {};   // the last token that max_tokens allows
  std::optional<LengthDecay> exponential_decay_length_penalty = {};
  std::vector<int32_t> suppress_tokens = {};
  std::vector<int32_t> begin_suppress_tokens = {};  // as the first output token
};

}  // namespace eps
