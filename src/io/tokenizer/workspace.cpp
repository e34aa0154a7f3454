#include "io/tokenizer/workspace.h"

#include "base/error.h"

namespace eps::io::tok {

void require_stage_fits(size_t num_stages, const std::string& where) {
  if (num_stages < kMaxStages) return;
  fail(ErrorKind::kInput, where,
       {"a chain of the tokenizer has too many stages", {}, fmt::format("at most {}", kMaxStages), {}});
}

Budget Budget::for_text(size_t text_bytes, std::string_view what) {
  constexpr size_t kBytesPerByte = 64;
  constexpr size_t kAtLeast = size_t{4} << 20;
  return {kAtLeast + kBytesPerByte * text_bytes, what};
}

Budget Budget::for_tokens(std::string_view what) {
  constexpr size_t kAtLeast = size_t{16} << 20;
  return {kAtLeast, what};
}

void Budget::fail_used_up() const {
  fail(ErrorKind::kInput, std::string(what_),
       {fmt::format("the tokenizer expands its input too much: more than {} bytes so far", spent_),
        {},
        {},
        "the tokenizer.json that belongs to the model"});
}

}  // namespace eps::io::tok
