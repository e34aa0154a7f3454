#define PCRE2_CODE_UNIT_WIDTH 8
#include "io/tokenizer/regex.h"

#include <gtest/gtest.h>
#include <pcre2.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "io/tokenizer/pre_tokenizer.h"
#include "io/tokenizer/unicode.h"

namespace eps::io::tok {
namespace {

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  const Regex regex(pattern, "test");
  RegexScratch scratch;
  std::vector<Span> spans;
  regex.find_all(text, scratch, spans);
  std::vector<std::string> found;
  size_t covered = 0;
  for (const Span& span : spans) {
    EXPECT_EQ(span.begin, covered);
    covered = span.end;
    if (span.is_match) found.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  EXPECT_EQ(covered, text.size());
  return found;
}

using Strings = std::vector<std::string>;

std::string all_characters() {
  std::string text;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c < 0xd800 || c > 0xdfff) utf8_append(text, c);
  }
  return text;
}

// Number of characters and a hash over them, as in make_tokenizer_golden.py.
struct Members {
  size_t count = 0;
  uint64_t hash = 0xcbf29ce484222325ULL;
  void add(char32_t c) {
    ++count;
    for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ ((c >> shift) & 0xff)) * 0x100000001b3ULL;
  }
};

struct ClassCase {
  std::string_view pattern;
  size_t count;
  uint64_t hash;
};

// What Oniguruma, with the tables of Unicode 16, finds among all characters one by one.
constexpr ClassCase kClasses[] = {
    {R"(\s)", 25, 0x07db14e6e1f1a2f5ULL},
    {R"(\S)", 1112039, 0x4f6d9c0065445325ULL},
    {R"(\d)", 760, 0x42d158e6fb1eebdfULL},
    {R"(\D)", 1111304, 0xb7939202ec55aa97ULL},
    {R"(\w)", 144671, 0x84911bebd359ca4cULL},
    {R"(\W)", 967393, 0x7a09922937fe4ebcULL},
    {R"([\w])", 144665, 0xe7b565f5d3a103ffULL},
    {R"(\h)", 22, 0xaf15325b68b38cf4ULL},
    {R"(\p{L})", 141028, 0xf41bf72239455b4fULL},
    {R"(\p{Lu})", 1858, 0xfd342e13a57e5d04ULL},
    {R"(\p{Ll})", 2258, 0x927bffdf46d7c43dULL},
    {R"(\p{Lm})", 404, 0x027a0171682e7278ULL},
    {R"(\p{Lo})", 136477, 0x0de7f357b9ab953aULL},
    {R"(\p{M})", 2501, 0xd996d5f3b9390f58ULL},
    {R"(\p{N})", 1911, 0xd15586ee8a145a41ULL},
    {R"(\p{P})", 855, 0x823c3c98638cc712ULL},
    {R"(\p{S})", 8514, 0x005984794dd2aed8ULL},
    {R"(\p{Han})", 99030, 0xc64be76eb86e54d8ULL},
    {R"(\P{L})", 971036, 0x0a60284c079630ebULL},
    {R"([^\s\p{L}\p{N}])", 969100, 0x7ee90ea310c9a2d7ULL},
    {R"([[:punct:]])", 9369, 0x0538cba54c442863ULL},
    {R"([[:space:]])", 25, 0x07db14e6e1f1a2f5ULL},
    {R"([[:blank:]])", 18, 0x11858f25fe2c96adULL},
    {R"([[:cntrl:]])", 65, 0x21bb5dad90e006faULL},
    {R"([[:digit:]])", 760, 0x42d158e6fb1eebdfULL},
    {R"([[:xdigit:]])", 22, 0xaf15325b68b38cf4ULL},
    {R"([[:word:]])", 144665, 0xe7b565f5d3a103ffULL},
    {R"([\W])", 967399, 0xcf53f366402437d7ULL},
    {R"([\H])", 1112042, 0x06295fd7306e7674ULL},
    {R"([^\W_])", 144664, 0x73d28cccf4079894ULL},
    {R"([\p{Lo}\p{M}&&[^\p{Han}]])", 40294, 0xcd96730b31ddf0fdULL},
    {R"([^\p{L}&&\p{Lo}])", 975587, 0x97b6819557fc3446ULL},
    {R"([\w&&[^\d_]&&[^a-z]])", 143878, 0x6ebb191beb49fb65ULL},
    {R"([\p{L}&&^a])", 1, 0xac804b820e4fe984ULL},
    {R"([a[^\p{L}]])", 971037, 0xe37a7e61d1a08c2eULL},
    {R"([^a[^b]])", 1, 0x8c704f9b10f11f37ULL},
    {R"([[a-c][x-z]-])", 7, 0xea7c5a3163e5e9f3ULL},
    {R"([[:^punct:]])", 1102695, 0x89e7ba5283dd2ce3ULL},
    {R"([^[:^digit:]1])", 759, 0x22850459da1ae026ULL},
    {R"(.)", 1112063, 0x6490445b0fe3fb2fULL},
};

TEST(Regex, ClassesHoldTheCharactersOfUnicode16) {
  const std::string text = all_characters();
  RegexScratch scratch;
  for (const ClassCase& c : kClasses) {
    std::vector<Span> spans;
    Regex(c.pattern, "test").find_all(text, scratch, spans);
    Members members;
    for (const Span& span : spans) {
      if (span.is_match) members.add(utf8_decode(text, span.begin));
    }
    EXPECT_EQ(members.count, c.count) << c.pattern;
    EXPECT_EQ(members.hash, c.hash) << c.pattern;
  }
}

struct PropertyCase {
  const char* name;
  bool (*has)(char32_t);
  size_t count;
  uint64_t hash;
};

constexpr PropertyCase kProperties[] = {
    {"numeric", is_numeric, 1924, 0xa1b06be6929373bbULL},
    {"whitespace", is_whitespace, 25, 0x07db14e6e1f1a2f5ULL},
    {"punctuation", is_punctuation, 726, 0x44cc3f6f89dbdb6fULL},
    {"word", is_word, 144667, 0x156e6c7c1c2c0c26ULL},
};

TEST(Unicode, PropertiesAreThoseOfTheReference) {
  for (const PropertyCase& c : kProperties) {
    Members members;
    for (char32_t code = 0; code < 0x110000; ++code) {
      if ((code < 0xd800 || code > 0xdfff) && c.has(code)) members.add(code);
    }
    EXPECT_EQ(members.count, c.count) << c.name;
    EXPECT_EQ(members.hash, c.hash) << c.name;
  }
}

struct MappingCase {
  const char* name;
  std::string (*map)(char32_t);
  uint64_t hash;
};

template <UnicodeForm kForm>
std::string normalized(char32_t c) {
  std::string text;
  utf8_append(text, c);
  return normalize_unicode(text, kForm);
}

std::string lowercase(char32_t c) {
  std::string text;
  append_lowercase(text, c);
  return text;
}

constexpr MappingCase kMappings[] = {
    {"NFC", normalized<UnicodeForm::kNfc>, 0x23fc43766d7c2eb9ULL},
    {"NFD", normalized<UnicodeForm::kNfd>, 0x2d165bb5391680a1ULL},
    {"NFKC", normalized<UnicodeForm::kNfkc>, 0x9d5b951dbc60f581ULL},
    {"NFKD", normalized<UnicodeForm::kNfkd>, 0x46e757dfeea21caeULL},
    {"lowercase", lowercase, 0xdcd1e661348268ccULL},
};

TEST(Unicode, MappingsAreThoseOfTheReference) {
  for (const MappingCase& c : kMappings) {
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (char32_t code = 0; code < 0x110000; ++code) {
      if (code >= 0xd800 && code <= 0xdfff) continue;
      for (const char byte : c.map(code)) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3ULL;
    }
    EXPECT_EQ(hash, c.hash) << c.name;
  }
}

TEST(Unicode, LongRunsOfMarksAreSortedInReasonableTime) {
  std::string text = "a";
  for (int i = 0; i < 100000; ++i) text += i % 2 == 0 ? "\u0301" : "\u0323";  // alternating combining classes
  const std::string sorted = normalize_unicode(text, UnicodeForm::kNfd);
  EXPECT_EQ(sorted.size(), text.size());
  EXPECT_TRUE(sorted.starts_with("a\u0323\u0323"));
  EXPECT_TRUE(sorted.ends_with("\u0301\u0301"));
}

TEST(Regex, EmptyMatchesSplitButNeverLoop) {
  EXPECT_EQ(matches("x*", "axxb"), (Strings{"", "xx", ""}));
  EXPECT_EQ(matches("(?:)", "éa"), (Strings{"", "", ""}));
  EXPECT_EQ(matches("a|$", "ba"), (Strings{"a"}));
  EXPECT_EQ(matches("a", ""), Strings{});
}

TEST(Regex, TranslatesSyntaxThatDiffersInOniguruma) {
  EXPECT_EQ(matches(R"(\h+)", "xyz0aFg \t"), (Strings{"0aF"}));
  EXPECT_EQ(matches(R"(\H)", "0 a"), (Strings{" "}));
  EXPECT_EQ(matches(R"(\v)", "a\vb\nc"), (Strings{"\v"}));
  EXPECT_EQ(matches(R"(\u00e9|\x41|\x{42})", "éAB"), (Strings{"é", "A", "B"}));
  EXPECT_EQ(matches("^a", "a\na"), (Strings{"a", "a"}));
  EXPECT_EQ(matches("a$", "a\na"), (Strings{"a", "a"}));
  EXPECT_EQ(matches("a.", "a\nab"), (Strings{"ab"}));
  EXPECT_EQ(matches("(?m:a.)", "a\nab"), (Strings{"a\n", "ab"}));
  EXPECT_EQ(matches("a{,2}b", "aaab"), (Strings{"aab"}));
  EXPECT_EQ(matches("a{x}", "a{x}"), (Strings{"a{x}"}));
  EXPECT_EQ(matches(R"(\b\w+\b)", "e\u0301a-²x"), (Strings{"e\u0301a", "²x"}));
  EXPECT_EQ(matches(R"([\w-]+)", "a²-b"), (Strings{"a", "-b"}));
  EXPECT_EQ(matches(R"(a\Bb)", "ab"), (Strings{"ab"}));
  EXPECT_EQ(matches("(?i:'s|'ll)", "'S 'lL '\u017f"), (Strings{"'S", "'lL", "'\u017f"}));
  EXPECT_EQ(matches("[[:digit:][:upper:]]+", "aB1\u0661c"), (Strings{"B1\u0661"}));
}

// The results are Oniguruma's.
TEST(Regex, IntervalsAreNeitherPossessiveNorLazyWhenFixed) {
  EXPECT_EQ(matches("a{2}+", "aaaaab"), (Strings{"aaaa"}));
  EXPECT_EQ(matches("a{1,2}+", "aaaaa"), (Strings{"aaaaa"}));
  EXPECT_EQ(matches("a{2}?b", "aab b"), (Strings{"aab", "b"}));
  EXPECT_EQ(matches("x(?:a|b){2}?c", "xabc xc"), (Strings{"xabc", "xc"}));
  EXPECT_EQ(matches("(?:ab){2}*c", "ababababc c"), (Strings{"ababababc", "c"}));
  EXPECT_EQ(matches("[ab]{2}+c", "ababac"), (Strings{"babac"}));
  EXPECT_EQ(matches("é{2}+", "ééééé"), (Strings{"éééé"}));
  EXPECT_EQ(matches("a{2}++a", "aaaa"), (Strings{"aaa"}));
}

TEST(Regex, RefusesUntranslatableSyntax) {
  for (const std::string_view pattern : {"[a&&]",
                                         "[&&a]",
                                         "[a-[b]]",
                                         "[a-&&b]",
                                         "[[a]-z]",
                                         "[a[b]",
                                         "(?x: a)",
                                         "(?~a)",
                                         "a(?i)b|c",
                                         "(*UTF)a",
                                         "[]a]",
                                         "[^]",
                                         "[a",
                                         R"([\b])",
                                         R"(\Qa\E)",
                                         R"(\xff)",
                                         R"(\u12)",
                                         R"(\K)",
                                         R"(\G)",
                                         R"(\pL)",
                                         R"(\p{L)",
                                         R"(\X)",
                                         "a\\",
                                         "(",
                                         "a**+++(",
                                         R"(\p{Nonsense})",
                                         R"([[:print:]])",
                                         R"(\g<1>)",
                                         R"((?<n>a)\k<n>)",
                                         "[[:alpha"}) {
    try {
      const Regex regex(pattern, "file.json: field");
      ADD_FAILURE() << pattern;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput) << pattern;
      EXPECT_EQ(error.where(), "file.json: field") << pattern;
    }
  }
}

// Matches from left to right with plain PCRE2, which always reads the whole text.
std::vector<std::pair<size_t, size_t>> matches_of_pcre2(const std::string& pattern, std::string_view text) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::string translated = onig_to_pcre2(pattern, "test");
  const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, nullptr),
      pcre2_code_free);
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(pcre2_match_data_create(1, nullptr),
                                                                                 pcre2_match_data_free);
  std::vector<std::pair<size_t, size_t>> found;
  size_t from = 0;
  while (from <= text.size() && pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, 0,
                                            data.get(), nullptr) >= 0) {
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
    const bool again = bounds[0] == bounds[1] && !found.empty() && found.back().second == bounds[1];
    if (!again) found.emplace_back(bounds[0], bounds[1]);
    from = bounds[1];
    if (again) from += from < text.size() ? utf8_sequence_length(text, from) : 1;
  }
  return found;
}

// Searches read one window of the text at a time. Tests runs of all lengths around that of the window, at all
// positions.
TEST(Regex, WindowsGiveTheResultsOfTheWholeText) {
  const std::vector<std::string> patterns = {
      R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
      R"((?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"(\d{1,3}(?=(?:\d{3})*\b))",
      R"([\r\n])",
      "a(?=.*b)",
      "a(?!.*b)",
      "(?<=ab)a+",
      "(?<!a)1+$",
      "^a*",
      "$",
      "a*$",
      "a*",
      "(?:)",
      R"(\b)",
      R"(\B)",
      R"(\z)",
      R"(a|\Z)",
      "(?:ab?)+1",
      "é+|中",
      ".*",
      ".+b",
      R"([^\n]{300})",
      "a{100}",
      R"((?m:.)*\z)"};
  const std::vector<std::string> letters = {"a", "b", "ab", "1", " ", "\n", "é", "中", "🙂", "'s", "-"};
  std::mt19937 random(7);
  for (const std::string& pattern : patterns) {
    const Regex regex(pattern, "test");
    for (int round = 0; round < 30; ++round) {
      std::string text;
      const size_t length = random() % 1500;
      while (text.size() < length) {
        const std::string& letter = letters[random() % letters.size()];
        const size_t times = random() % 12 == 0 ? 200 + random() % 120 : 1 + random() % 4;
        for (size_t i = 0; i < times; ++i) text += letter;
      }
      RegexScratch scratch;
      std::vector<Span> spans;
      regex.find_all(text, scratch, spans);
      std::vector<std::pair<size_t, size_t>> found;
      for (const Span& span : spans) {
        if (span.is_match) found.emplace_back(span.begin, span.end);
      }
      if (text.empty()) continue;  // one span that is no match, by definition
      ASSERT_EQ(found, matches_of_pcre2(pattern, text)) << pattern << "\n" << printable(text, 2000);
    }
  }
}

TEST(Regex, SinksMayMatchWithTheSameScratch) {
  const Regex words("[a-z]+", "test");
  const Regex letters("[a-z]", "test");
  RegexScratch scratch;
  std::string out;
  const bool all = words.for_each_span("ab cd", scratch, [&](const Span& word) {
    out += word.is_match ? "[" : "(";
    letters.for_each_span(std::string_view("ab cd").substr(word.begin, word.end - word.begin), scratch,
                          [&](const Span& letter) {
                            out += letter.is_match ? "x" : "_";
                            return true;
                          });
    return true;
  });
  EXPECT_TRUE(all);
  EXPECT_EQ(out, "[xx(_[xx");
  EXPECT_FALSE(words.for_each_span("ab cd", scratch, [](const Span&) { return false; }));
}

TEST(Regex, GivesUpOnExponentialPatterns) {
  const Regex regex("(?:a|aa)+$", "test");
  RegexScratch scratch;
  std::vector<Span> spans;
  EXPECT_THROW(regex.find_all(std::string(64, 'a') + "c", scratch, spans), Error);
  spans.clear();
  regex.find_all("aaa", scratch, spans);  // the scratch is still usable
  EXPECT_EQ(spans.size(), 1U);
}

TEST(Regex, MatchesMegabytesOfWhitespace) {
  const std::string text = std::string(4 << 20, ' ') + "x";
  EXPECT_EQ(matches(R"(\s*[\r\n]+|\s+(?!\S)|\s+)", text).size(), 2U);
}

std::string merged(const std::vector<Span>& spans, SplitBehavior behavior, std::string_view text) {
  std::string out;
  const auto append = [&](const Span& span) {
    out += fmt::format("[{}]", text.substr(span.begin, span.end - span.begin));
    return true;
  };
  SpanMerger merger(behavior, append);
  for (const Span& span : spans) EXPECT_TRUE(merger.add(span));
  EXPECT_TRUE(merger.finish());
  return out;
}

TEST(SplitBehavior, TreatsMatchesAsNamed) {
  const std::string_view text = "the-final--countdown";
  RegexScratch scratch;
  std::vector<Span> spans;
  Regex("-", "test").find_all(text, scratch, spans);
  const auto split = [&](SplitBehavior behavior) { return merged(spans, behavior, text); };
  EXPECT_EQ(split(SplitBehavior::kRemoved), "[the][final][countdown]");
  EXPECT_EQ(split(SplitBehavior::kIsolated), "[the][-][final][-][-][countdown]");
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious), "[the-][final-][-][countdown]");
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext), "[the][-final][-][-countdown]");
  EXPECT_EQ(split(SplitBehavior::kContiguous), "[the][-][final][--][countdown]");
}

}  // namespace
}  // namespace eps::io::tok
