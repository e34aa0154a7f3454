// A backtracking matcher may read the whole text at each position, and may take exponentially many steps. Two measures
// limit the work of a call to O(text):
// - A search is limited to a window of kWindow bytes. PCRE2's partial matching reports whether it would have read
// beyond the window; if not, the result is that of the whole text. Within a window, even a quadratic pattern takes a
// constant number of steps per byte. Nearly all matches of real patterns and texts end here.
// - A match that does not fit a window uses a second compilation of the pattern, in which a callout before each item
// counts the bytes that the matcher moves over. The total is limited to kMinSteps, plus kStepsPerByte for each byte of
// all texts of the scratch. If it is exceeded, matching fails with an error.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "io/tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "io/tokenizer/unicode.h"

namespace eps::io::tok {
namespace {

constexpr size_t kMaxPattern = size_t{1} << 16;  // real patterns have up to 2 kB; translation can expand a byte to 500
constexpr size_t kWindow = 256;
// A generous limit: backtracking over a run of whitespace takes three to ten steps per byte.
constexpr uint64_t kStepsPerByte = 32;
constexpr uint64_t kMinSteps = 1'000'000;
// Limits within a window: the number of steps of an attempt after which the rest is matched with counted steps, and the
// number of steps that such a failed attempt counts as.
constexpr uint32_t kWindowMatchLimit = 4096;
constexpr uint64_t kWindowFailureSteps = 65'536;
// PCRE2's own limits are larger than the counted steps, except for memory, which can end a match first. A match that
// repeats a group takes about 32 bytes for each repetition.
constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = 64 * 1024 * 1024;  // address space, of which only as much is used as a match needs

std::string error_text(int code) {
  if (code == PCRE2_ERROR_CALLOUT) return "too many steps";
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

// Returns `text` with substitute characters (unicode.h), or `text` itself if there is nothing to substitute.
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

// The end of a window that begins at `from`; always at a character boundary.
size_t window_end(std::string_view text, size_t from) {
  if (text.size() - from <= kWindow) return text.size();
  size_t end = from + kWindow;
  while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return end;
}

struct StepCounter {
  uint64_t left = kMinSteps;
  size_t position = 0;
};

// Called before each item of the pattern. A repeated item moves many bytes between two calls.
int count_steps(pcre2_callout_block* block, void* data) {
  auto& steps = *static_cast<StepCounter*>(data);
  const size_t position = block->current_position;
  const size_t moved = position > steps.position ? position - steps.position : steps.position - position;
  steps.position = position;
  if (moved >= steps.left) {
    steps.left = 0;
    return PCRE2_ERROR_CALLOUT;
  }
  steps.left -= moved + 1;
  return 0;
}

struct FreePcre2 {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};
template <typename T>
using Pcre2Ptr = std::unique_ptr<T, FreePcre2>;

}  // namespace

struct RegexScratch::Impl {
  Pcre2Ptr<pcre2_match_data> match{pcre2_match_data_create(1, nullptr)};
  Pcre2Ptr<pcre2_jit_stack> stack{pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)};
  Pcre2Ptr<pcre2_match_context> window{pcre2_match_context_create(nullptr)};
  Pcre2Ptr<pcre2_match_context> counted{pcre2_match_context_create(nullptr)};
  StepCounter steps;

  Impl() {
    if (match == nullptr || window == nullptr || counted == nullptr) {
      throw Error(ErrorKind::kResource, "regex", "out of memory");
    }
    for (pcre2_match_context* context : {window.get(), counted.get()}) {
      // On machines without JIT, this stack does not exist and PCRE2 uses its own small one.
      if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack.get());
      pcre2_set_heap_limit(context, kHeapLimitKib);
    }
    pcre2_set_match_limit(window.get(), kWindowMatchLimit);
    pcre2_set_depth_limit(window.get(), kWindowMatchLimit);
    pcre2_set_match_limit(counted.get(), UINT32_MAX);
    pcre2_set_depth_limit(counted.get(), UINT32_MAX);
    pcre2_set_callout(counted.get(), count_steps, &steps);
  }
};

RegexScratch::RegexScratch() : impl_(std::make_unique<Impl>()) {}
RegexScratch::~RegexScratch() = default;

struct Regex::Impl {
  std::string pattern;
  std::string where;
  Pcre2Ptr<pcre2_code> code;
  Pcre2Ptr<pcre2_code> counted_code;
  bool stand_ins = true;

  Impl(std::string_view pattern_in, std::string where_in) : pattern(pattern_in), where(std::move(where_in)) {}

  Pcre2Ptr<pcre2_code> compile(const std::string& translated, uint32_t options, uint32_t jit_options) const;

  // The state of matching one text.
  struct Walk {
    std::string_view subject;
    RegexScratch::Impl& memory;
    bool count_all = false;  // an attempt within a window has run out of steps

    const PCRE2_SIZE* bounds() const { return pcre2_get_ovector_pointer(memory.match.get()); }
  };
  // Returns the first match at `from` or later, which is the same that PCRE2 would find in the whole subject.
  std::optional<Span> search(Walk& walk, size_t from) const;
  std::optional<Span> search_counted(Walk& walk, size_t from, uint32_t options) const;
};

Pcre2Ptr<pcre2_code> Regex::Impl::compile(const std::string& translated, uint32_t options, uint32_t jit_options) const {
  const Pcre2Ptr<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  if (context == nullptr) throw Error(ErrorKind::kResource, where, "out of memory");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // for '.', '^' and '$'; the default depends on PCRE2's build
  int error = 0;
  PCRE2_SIZE offset = 0;
  Pcre2Ptr<pcre2_code> compiled(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      options | PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get()));
  if (compiled == nullptr) {
    fail(ErrorKind::kInput, where,
         {fmt::format("the regex does not compile ({})", error_text(error)), pattern, {}, {}});
  }
  // If PCRE2 has no JIT for the machine, matching is slower but otherwise the same.
  pcre2_jit_compile(compiled.get(), jit_options);
  return compiled;
}

Regex::Regex(std::string_view pattern, std::string where) : impl_(std::make_unique<Impl>(pattern, std::move(where))) {
  if (pattern.size() > kMaxPattern) {
    fail(
        ErrorKind::kInput, impl_->where,
        {"the regex is too long", fmt::format("{} bytes", pattern.size()), fmt::format("at most {}", kMaxPattern), {}});
  }
  const std::string translated = onig_to_pcre2(pattern, impl_->where);
  std::string buffer;
  // A pattern that contains such a character must be matched with the original text.
  impl_->stand_ins = substitute(pattern, buffer) == pattern;
  impl_->code = impl_->compile(translated, 0, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  impl_->counted_code = impl_->compile(translated, PCRE2_AUTO_CALLOUT, PCRE2_JIT_COMPLETE);
}

Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

std::optional<Span> Regex::Impl::search(Walk& walk, size_t from) const {
  const std::string_view subject = walk.subject;
  while (!walk.count_all) {
    const size_t end = window_end(subject, from);
    const bool partial = end < subject.size();
    const int found = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(subject.data()), end, from,
                                  PCRE2_NO_UTF_CHECK | (partial ? PCRE2_PARTIAL_HARD : 0), walk.memory.match.get(),
                                  walk.memory.window.get());
    if (found >= 0) {
      const Span match{walk.bounds()[0], walk.bounds()[1], true};
      // An empty match at the window's end does not take the following text into account, so the next window is
      // searched.
      if (!partial || match.begin < end) return match;
      from = end;
    } else if (found == PCRE2_ERROR_NOMATCH) {
      if (!partial) return std::nullopt;
      from = end;
    } else if (found == PCRE2_ERROR_PARTIAL) {
      // No match begins before this partial one, which needs more text than the window contains.
      if (walk.bounds()[0] > from) {
        from = walk.bounds()[0];
        continue;
      }
      if (const auto match = search_counted(walk, from, PCRE2_ANCHORED)) return match;
      from += utf8_sequence_length(subject, from);
    } else {
      walk.count_all = true;
      walk.memory.steps.left -= std::min(walk.memory.steps.left, kWindowFailureSteps);
    }
  }
  return search_counted(walk, from, 0);
}

std::optional<Span> Regex::Impl::search_counted(Walk& walk, size_t from, uint32_t options) const {
  walk.memory.steps.position = from;
  const int found =
      pcre2_match(counted_code.get(), reinterpret_cast<PCRE2_SPTR>(walk.subject.data()), walk.subject.size(), from,
                  PCRE2_NO_UTF_CHECK | options, walk.memory.match.get(), walk.memory.counted.get());
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0) {
    fail(ErrorKind::kInput, where,
         {fmt::format("the regex exceeds a limit at byte {} of a text of {} bytes ({})", from, walk.subject.size(),
                      error_text(found)),
          pattern, "", "a shorter text, or a tokenizer with a simpler pattern"});
  }
  return Span{walk.bounds()[0], walk.bounds()[1], true};
}

bool Regex::for_each_span(std::string_view text, RegexScratch& scratch, SpanSink sink) const {
  if (text.empty()) return sink({0, 0, false});
  std::string buffer;
  const std::string_view subject = impl_->stand_ins ? substitute(text, buffer) : text;
  Impl::Walk walk{subject, *scratch.impl_};
  walk.memory.steps.left += kStepsPerByte * subject.size();
  size_t covered = 0;
  size_t from = 0;
  bool matched_before = false;
  while (from <= subject.size()) {
    const auto match = impl_->search(walk, from);
    if (!match) break;
    if (match->begin == match->end && matched_before && match->end == covered) {
      if (from >= subject.size()) break;
      from += utf8_sequence_length(subject, from);
      continue;
    }
    if (match->begin != covered && !sink({covered, match->begin, false})) return false;
    if (!sink(*match)) return false;
    covered = match->end;
    from = match->end;
    matched_before = true;
  }
  return covered == text.size() || sink({covered, text.size(), false});
}

void Regex::find_all(std::string_view text, RegexScratch& scratch, std::vector<Span>& out) const {
  for_each_span(text, scratch, [&out](const Span& span) {
    out.push_back(span);
    return true;
  });
}

}  // namespace eps::io::tok
