// The state of one call of encode or decode: scratch memory, and bounds on the text that the call may produce.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "io/tokenizer/regex.h"

namespace eps::io::tok {

// Maximum number of stages of a chain (normalizers, pre-tokenizers, decoders). Real files have at most seven. A chain
// is traversed recursively for each piece of text, so its depth and cost must be limited.
inline constexpr size_t kMaxStages = 64;

// Adds a stage to a chain that `where` names.
//
// Errors  kInput beyond kMaxStages
void require_stage_fits(size_t num_stages, const std::string& where);

// The number of bytes that all stages of a chain together may still write. A tokenizer.json of a few hundred bytes can
// contain twelve replacements that each expand a text by a factor of ten; limiting the bytes limits memory and time.
class Budget {
 public:
  // For `text_bytes` of input: 64 bytes for each, plus 4 MiB. Of the operations in real files, normalization form KD
  // expands a text the most, by a factor of at most eleven; a byte alphabet doubles it, and a metaspace mark takes
  // three times the bytes of a space.
  static Budget for_text(size_t text_bytes, std::string_view what);
  // For decoding: 16 MiB, plus 1 KiB for each token, which earn_token adds.
  static Budget for_tokens(std::string_view what);

  void earn_token() { earn(kBytesPerToken); }
  // Accounts for a piece of `bytes` bytes. Must be called before its memory is allocated.
  //
  // Errors  kInput when the budget is exhausted
  void spend(size_t bytes) {
    if (bytes >= left_) fail_used_up();
    left_ -= bytes + 1;  // plus one for the piece itself, because an empty one takes time, too
    spent_ += bytes + 1;
  }

 private:
  static constexpr size_t kBytesPerToken = 1024;

  Budget(size_t bytes, std::string_view what) : left_(bytes), what_(what) {}
  void earn(size_t bytes) { left_ += bytes; }
  [[noreturn]] void fail_used_up() const;

  size_t left_;
  size_t spent_ = 0;
  std::string_view what_;  // what errors name
};

struct Workspace {
  explicit Workspace(Budget budget_in) : budget(budget_in) {}

  RegexScratch regex;
  Budget budget;
};

}  // namespace eps::io::tok
