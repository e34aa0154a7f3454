#define PCRE2_CODE_UNIT_WIDTH 8
#include "io/tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "io/tokenizer/unicode.h"

namespace eps::tok {
namespace {

// Steps one match may take: backtracking over a run of whitespace takes one a byte, so that this still admits runs
// of megabytes, while a pattern with exponential blow-up is given up within a second.
constexpr uint32_t kMinMatchLimit = 10'000'000;
constexpr size_t kMatchLimitPerByte = 8;
constexpr uint32_t kHeapLimitKib = 512 * 1024;
constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = 64 * 1024 * 1024;  // address space: touched only as deep as a match goes

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

// `text` with stand-ins (unicode.h); untouched, and without a copy, when there are none.
std::string_view substitute(std::string_view text, std::string& buffer) {
  bool copied = false;
  for (size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0xe0) {  // fewer than three bytes: none is recent
      ++i;
      continue;
    }
    const char32_t c = utf8_decode(text, i);
    const size_t length = c < 0x10000 ? 3 : 4;
    if (const char32_t stand_in = regex_stand_in(c); stand_in != c) {
      if (!copied) buffer.assign(text);
      copied = true;
      std::string bytes;
      utf8_append(bytes, stand_in);
      buffer.replace(i, length, bytes);
    }
    i += length;
  }
  return copied ? std::string_view(buffer) : text;
}

}  // namespace

struct RegexScratch::Impl {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr);

  Impl() {
    if (match == nullptr || context == nullptr) throw Error(ErrorKind::kResource, "regex", "out of memory");
    // Without a stack (there is none on machines without JIT) PCRE2 uses a small one of its own.
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
    pcre2_set_heap_limit(context, kHeapLimitKib);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
};

RegexScratch::RegexScratch() : impl_(std::make_unique<Impl>()) {}
RegexScratch::~RegexScratch() = default;

struct Regex::Impl {
  std::string pattern;
  std::string where;
  pcre2_code* code = nullptr;
  bool stand_ins = true;

  Impl(std::string_view pattern_in, std::string where_in) : pattern(pattern_in), where(std::move(where_in)) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, std::string where) : impl_(std::make_unique<Impl>(pattern, std::move(where))) {
  const std::string translated = onig_to_pcre2(pattern, impl_->where);
  std::string buffer;
  // A pattern that names such a character has to see it.
  impl_->stand_ins = substitute(pattern, buffer) == pattern;
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (context == nullptr) throw Error(ErrorKind::kResource, impl_->where, "out of memory");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // what '.', '^' and '$' go by; the build default varies
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get());
  if (impl_->code == nullptr) {
    fail(ErrorKind::kInput, impl_->where,
         {fmt::format("the regex does not compile ({})", error_text(error)), std::string(pattern), {}, {}});
  }
  // Where PCRE2 has no JIT for the machine, matching is slower and otherwise the same.
  pcre2_jit_compile(impl_->code, PCRE2_JIT_COMPLETE);
}

Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

void Regex::find_all(std::string_view text, RegexScratch& scratch, std::vector<Span>& out) const {
  if (text.empty()) {
    out.push_back({0, 0, false});
    return;
  }
  std::string buffer;
  const std::string_view subject = impl_->stand_ins ? substitute(text, buffer) : text;
  RegexScratch::Impl& memory = *scratch.impl_;
  pcre2_set_match_limit(memory.context, static_cast<uint32_t>(std::clamp<size_t>(subject.size() * kMatchLimitPerByte,
                                                                                 kMinMatchLimit, UINT32_MAX)));
  size_t covered = 0;
  size_t from = 0;
  bool matched_before = false;
  while (from <= subject.size()) {
    const int found = pcre2_match(impl_->code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), from,
                                  PCRE2_NO_UTF_CHECK, memory.match, memory.context);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      fail(ErrorKind::kInput, impl_->where,
           {fmt::format("the regex gives up at byte {} of a text of {} bytes ({})", from, subject.size(),
                        error_text(found)),
            impl_->pattern, "", "a shorter text, or a tokenizer with a simpler pattern"});
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(memory.match);
    const size_t begin = bounds[0];
    const size_t end = bounds[1];
    if (begin == end && matched_before && end == covered) {
      if (from >= subject.size()) break;
      from += utf8_sequence_length(subject, from);
      continue;
    }
    if (begin != covered) out.push_back({covered, begin, false});
    out.push_back({begin, end, true});
    covered = end;
    from = end;
    matched_before = true;
  }
  if (covered != text.size()) out.push_back({covered, text.size(), false});
}

}  // namespace eps::tok
