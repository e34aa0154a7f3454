// Modifies logits before a token is sampled from them: penalties, forbidden tokens and n-grams, forced tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "epsmoe/sampling.h"

namespace eps::engine {

// The state of a sequence before its first output token.
struct SequenceStart {
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> eos_ids;  // those outside the vocabulary have no effect
  int64_t max_tokens = 0;        // of the output
};

// Applies the options of SamplingOptions that change logits, in the order of their declaration.
//
// Source  the LogitsProcessors of transformers 5.24; the frequency and presence penalties are vLLM's
class LogitsProcessor {
 public:
  LogitsProcessor(const SamplingOptions& options, SequenceStart start);

  // Whether all options are neutral, so that process() does nothing.
  bool is_off() const { return is_off_; }

  // Modifies the logits of the next token, [vocab]. Forbidden tokens get minus infinity.
  void process(std::span<float> logits) const;

  // Appends an output token to the sequence.
  void append(int32_t id) { ids_.push_back(id); }

 private:
  int64_t num_output() const { return std::ssize(ids_) - prompt_len_; }
  void add_biases(std::span<float> logits) const;
  void penalize(std::span<float> logits) const;
  void mask_ngrams(std::span<float> logits, int64_t size, std::span<const int32_t> seen) const;
  void mask_words(std::span<float> logits) const;
  void hold_back_eos(std::span<float> logits) const;
  void force(std::span<float> logits) const;

  SamplingOptions options_;
  std::vector<int32_t> ids_;  // prompt and output
  int64_t prompt_len_;
  std::vector<int32_t> eos_ids_;
  int64_t max_tokens_;
  bool is_off_;
};

}  // namespace eps::engine
