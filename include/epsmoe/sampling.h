// How the next token is chosen. Defaults change nothing, so that only what is set has an effect.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace eps {

// Adds `bias` to the logit of the last of `ids` wherever the others stand right before it.
struct SequenceBias {
  std::vector<int32_t> ids;
  double bias = 0.0;
};

// Eases a text to its end: from `start` output tokens on, end-of-text logits grow by |logit| · (factor^n - 1) after n
// further ones.
struct LengthDecay {
  int64_t start = 0;
  double factor = 1.0;
};

// Names are those of transformers' GenerationConfig, or else of vLLM's SamplingParams. Logits are first changed in the
// order of the second group; temperature and then the first group apply where temperature is not 0.
struct SamplingOptions {
  double temperature = 1.0;  // 0: greedy
  int64_t top_k = 0;         // 0 or -1: off
  double top_p = 1.0;        // 1: off; 0: the most likely token alone
  uint64_t seed = 0;

  // Cuts, in this order: top_h comes before top_k and top_p, the others after them.
  std::optional<double> top_h = {};  // part of the entropy to keep
  double min_p = 0.0;                // least probability, in parts of the largest; 0: off
  double typical_p = 1.0;            // mass of locally typical tokens to keep; 1: off
  double epsilon_cutoff = 0.0;       // least probability; 0: off
  double eta_cutoff = 0.0;           // the same, lowered where the distribution is flat; 0: off

  // Changes of logits, in this order.
  std::vector<SequenceBias> sequence_bias = {};
  double encoder_repetition_penalty = 1.0;   // above 1: favours tokens of the prompt; 1: off
  double repetition_penalty = 1.0;           // above 1: disfavours tokens of the prompt and the output; 1: off
  double frequency_penalty = 0.0;            // taken off for each time that a token is in the output
  double presence_penalty = 0.0;             // taken off once if it is
  int64_t no_repeat_ngram_size = 0;          // 0: off
  int64_t encoder_no_repeat_ngram_size = 0;  // n-grams of the prompt only; 0: off
  std::vector<std::vector<int32_t>> bad_words_ids = {};
  int64_t min_length = 0;                           // of prompt and output; min_tokens, where set, replaces it
  int64_t min_tokens = 0;                           // of the output, before an end-of-text token
  std::optional<int32_t> forced_bos_token_id = {};  // after a prompt of one token
  std::vector<int32_t> forced_eos_token_ids = {};   // the last token that max_tokens allows
  std::optional<LengthDecay> exponential_decay_length_penalty = {};
  std::vector<int32_t> suppress_tokens = {};
  std::vector<int32_t> begin_suppress_tokens = {};  // as the first output token
};

}  // namespace eps
