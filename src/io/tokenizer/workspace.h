// What one call of encode or decode works with: scratch memory, and bounds on what the call may produce.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "io/tokenizer/regex.h"

namespace eps::tok {

// Stages of one chain (normalizers, pre-tokenizers, decoders). Real files have at most seven; a chain is walked
// recursively for each piece of text, so that both its depth and its cost have to be bounded.
inline constexpr size_t kMaxStages = 64;

// Adds a stage to a chain that `where` names.
//
// Errors  kInput beyond kMaxStages
void require_stage_fits(size_t num_stages, const std::string& where);

// How many bytes all stages of a chain together may still write. A tokenizer.json of a few hundred bytes can hold
// replacements that multiply a text by ten, twelve times over, and what is written is what bounds memory and time.
class Budget {
 public:
  // For `text_bytes` of input: 64 bytes for each, and 4 MiB. Of what real files do, normalization form KD grows a text
  // the most, eleven-fold at worst; a byte alphabet doubles it, a metaspace mark triples a space.
  static Budget for_text(size_t text_bytes, std::string_view what);
  // For decoding: 16 MiB, and 1 KiB for each token, which earn_token adds.
  static Budget for_tokens(std::string_view what);

  void earn_token() { earn(kBytesPerToken); }
  // One piece of `bytes` bytes. Call it before the memory is taken.
  //
  // Errors  kInput when the budget is used up
  void spend(size_t bytes) {
    if (bytes >= left_) fail_used_up();
    left_ -= bytes + 1;  // the one is for the piece itself: an empty one takes time, too
    spent_ += bytes + 1;
  }

 private:
  static constexpr size_t kBytesPerToken = 1024;

  Budget(size_t bytes, std::string_view what) : left_(bytes), what_(what) {}
  void earn(size_t bytes) { left_ += bytes; }
  [[noreturn]] void fail_used_up() const;

  size_t left_;
  size_t spent_ = 0;
  std::string_view what_;  // the part of tokenizer.json to name in the error
};

struct Workspace {
  explicit Workspace(Budget budget_in) : budget(budget_in) {}

  RegexScratch regex;
  Budget budget;
};

}  // namespace eps::tok
