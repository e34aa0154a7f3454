// Bounds on the cost of a tokenizer.json and a text: time and memory in proportion to their sizes. Each case here was
// quadratic or worse, or took all memory, or is similar to such a case.
#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "io/json.h"
#include "io/tokenizer.h"
#include "io/tokenizer/merge_table.h"
#include "io/tokenizer/token_matcher.h"

namespace eps::io {
namespace {

using Ids = std::vector<int32_t>;

Json base() {
  return parse_json(R"({"version": "1.0", "added_tokens": [],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "\t": 2, " ": 3, "aa": 4, "1": 5}, "merges": [["a", "a"]]}})",
                    "base");
}

Json with(const char* pointer, const Json& value) {
  Json json = base();
  json[Json::json_pointer(pointer)] = value;
  return json;
}

Tokenizer load(const Json& json) { return Tokenizer::from_json(json.dump(), "t.json"); }

Json split(const std::string& regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json added(int id, const std::string& content, bool lstrip, bool rstrip) {
  return {{"id", id},         {"content", content},  {"single_word", false}, {"lstrip", lstrip},
          {"rstrip", rstrip}, {"normalized", false}, {"special", false}};
}

std::string repeated(std::string_view part, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += part;
  return out;
}

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Runs `work`, which may be refused, and expects it to take a fraction of the time that it takes without bounds, which
// is ten seconds to hours. It needs 0.01 to 0.3 s; the rest is for sanitizers and slow machines.
template <typename Work>
void expect_bounded(const char* what, Work work) {
  SCOPED_TRACE(what);
  const double begin = cpu_seconds();
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
  EXPECT_LT(cpu_seconds() - begin, 5.0);
}

template <typename Work>
void expect_refused(const std::string& fragment, Work work) {
  SCOPED_TRACE(fragment);
  const double begin = cpu_seconds();
  try {
    work();
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput) << error.what();
    EXPECT_NE(std::string(error.what()).find(fragment), std::string::npos) << error.what();
  }
  EXPECT_LT(cpu_seconds() - begin, 5.0);
}

constexpr size_t kLong = 400'000;

TEST(TokenizerBounds, AddedTokensThatStripWhitespace) {
  const std::string tabs(kLong, '\t');
  for (const bool left : {true, false}) {
    const Tokenizer tokenizer = load(with("/added_tokens/0", added(2, "\t", left, !left)));
    expect_bounded(left ? "lstrip" : "rstrip", [&] {
      // The reference gives a token for each tab, although the first one (rstrip) covers all of them.
      EXPECT_EQ(tokenizer.encode(tabs, false), Ids(tabs.size(), 2));
    });
  }
  const Tokenizer both = load(with("/added_tokens/0", added(5, "1", true, true)));
  expect_bounded("ones between runs of spaces", [&] {
    const std::string text = repeated(std::string(1000, ' ') + "1", kLong / 1000);
    EXPECT_EQ(both.encode(text, false), Ids(kLong / 1000, 5));
  });
}

TEST(TokenizerBounds, LongAddedTokens) {
  const Tokenizer tokenizer = load(with("/added_tokens/0", added(6, std::string(kLong / 4, 'a'), false, false)));
  expect_bounded("all matches", [&] { EXPECT_EQ(tokenizer.encode(std::string(kLong, 'a'), false), Ids(4, 6)); });
  expect_bounded("all but a match", [&] {
    const std::string nearly = std::string(kLong / 4 - 1, 'a') + "b";
    EXPECT_EQ(tokenizer.encode(repeated(nearly, 4), false).size(), kLong / 2 + 4);
  });
}

TEST(TokenizerBounds, LongestMatchAtEachPosition) {
  const tok::TokenMatcher matcher({{"ab", 1}, {"abab", 2}, {"b", 3}, {"bab", 4}, {"ca", 5}});
  std::vector<std::pair<size_t, int32_t>> found;
  for (const tok::TokenMatcher::Match& match : matcher.longest_at_each("cababb")) {
    found.emplace_back(match.begin, match.id);
  }
  const std::vector<std::pair<size_t, int32_t>> expected = {{5, 3}, {4, 3}, {3, 1}, {2, 4}, {1, 2}, {0, 5}};
  EXPECT_EQ(found, expected);
}

TEST(TokenizerBounds, PatternsThatReadFarAheadOrOften) {
  const std::string letters(kLong, 'a');
  const std::string digits(kLong, '1');
  struct Case {
    const char* regex;
    const std::string& text;
  };
  for (const Case& c : std::vector<Case>{{"a(?=.*b)", letters},
                                         {R"(\d{1,3}(?=(?:\d{3})*\b))", digits},
                                         {"a+b", letters},
                                         {"a*b|c", letters},
                                         {"(?:a(?=[^b]*b))+", letters},
                                         {"a(?!.*b)", letters},
                                         {".*a.*b.*c", letters},
                                         {"(?:a|aa)+$b", letters},
                                         {R"((?:a+)+\z1)", letters},
                                         {R"((\d+)+b)", digits}}) {
    const Tokenizer tokenizer = load(with("/pre_tokenizer", split(c.regex)));
    expect_bounded(c.regex, [&] { tokenizer.encode(c.text, false); });
  }
}

TEST(TokenizerBounds, ManyShortTextsShareTheStepsOfOne) {
  // Each word is a separate text for the second pattern.
  Json json = base();
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array({split("b"), split("(?:a|aa)+(?=b)")})}};
  const Tokenizer tokenizer = load(json);
  expect_refused("exceeds a limit", [&] { tokenizer.encode(repeated(std::string(60, 'a') + "b", kLong / 61), false); });
}

TEST(TokenizerBounds, LegitimateRunsOfAnyLength) {
  Json json = base();
  json["model"]["vocab"][" "] = 3;
  json["pre_tokenizer"] = split(R"(\s*[\r\n]+|\s+(?!\S)|\s+|\d{1,3}(?=(?:\d{3})*\b)|a+)");
  const Tokenizer tokenizer = load(json);
  EXPECT_EQ(tokenizer.encode(std::string(kLong, ' ') + "b", false).size(), kLong + 1);
  EXPECT_EQ(tokenizer.encode(std::string(kLong, 'a'), false), Ids(kLong / 2, 4));
  EXPECT_EQ(tokenizer.encode(std::string(1000, '1'), false), Ids(1000, 5));
}

TEST(TokenizerBounds, LongLiterals) {
  const std::string needle = std::string(kLong / 4, 'a') + "b";
  Json json = base();
  json["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", needle}}}, {"content", "1"}};
  const Tokenizer tokenizer = load(json);
  expect_bounded("not there", [&] { EXPECT_EQ(tokenizer.encode(std::string(kLong, 'a'), false), Ids(kLong / 2, 4)); });
  EXPECT_EQ(tokenizer.encode("b" + needle + "a" + needle, false), (Ids{1, 5, 0, 5}));
  EXPECT_EQ(tokenizer.encode("a" + needle + "b", false), (Ids{0, 5, 1}));
}

TEST(TokenizerBounds, StripWhileStreaming) {
  Json json = base();
  json["decoder"] = parse_json(
      R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":" ","start":0,"stop":1000000}]})",
      "t");
  const Tokenizer tokenizer = load(json);
  StreamDecoder decoder(tokenizer, false);
  expect_bounded("spaces that may be the end", [&] {
    for (size_t i = 0; i < kLong; ++i) EXPECT_EQ(decoder.push(3), "");
    EXPECT_EQ(decoder.push(0), std::string(kLong, ' ') + "a");
    EXPECT_EQ(decoder.flush(), "");
  });
}

TEST(TokenizerBounds, NormalizersThatMultiply) {
  Json tenfold = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaaaa"}};
  Json twelve = Json::array();
  for (int i = 0; i < 12; ++i) twelve.push_back(tenfold);
  const Json json = with("/normalizer", {{"type", "Sequence"}, {"normalizers", twelve}});
  const Tokenizer tokenizer = load(json);
  expect_refused("expands its input too much", [&] { tokenizer.encode("a", false); });
  // The same while loading, for an added token.
  Json token = added(6, "a", false, false);
  token["normalized"] = true;
  token["id"] = 0;
  Json with_token = json;
  with_token["added_tokens"] = Json::array({token});
  expect_refused("expands its input too much", [&] { load(with_token); });
  // A long prefix for each piece between added tokens.
  Json prefixed = with("/normalizer", {{"type", "Prepend"}, {"prepend", std::string(100'000, 'b')}});
  prefixed["added_tokens"] = Json::array({added(1, "b", false, false)});
  const Tokenizer prefixing = load(prefixed);
  expect_refused("expands its input too much", [&] { prefixing.encode(repeated("ab", 10'000), false); });
}

TEST(TokenizerBounds, ChainsOfManyStages) {
  const auto chain = [](const char* list, const Json& stage, size_t count) {
    Json stages = Json::array();
    for (size_t i = 0; i < count; ++i) stages.push_back(stage);
    return Json{{"type", "Sequence"}, {list, stages}};
  };
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  for (const size_t count : {size_t{64}, size_t{20'000}}) {
    for (const Json& json : {with("/normalizer", chain("normalizers", {{"type", "NFC"}}, count)),
                             with("/pre_tokenizer", chain("pretokenizers", digits, count)),
                             with("/decoder", chain("decoders", {{"type", "Fuse"}}, count))}) {
      if (count == 64) {
        const Tokenizer tokenizer = load(json);
        EXPECT_EQ(tokenizer.decode(tokenizer.encode("a1", false), false), json.contains("decoder") ? "a1" : "a 1");
      } else {
        expect_refused("too many stages", [&] { load(json); });
      }
    }
  }
}

TEST(TokenizerBounds, PostProcessorsThatRepeat) {
  Json single = Json::array();
  for (int i = 0; i < 20'000; ++i) single.push_back({{"SpecialToken", {{"id", "s"}, {"type_id", 0}}}});
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  const std::vector<int> ids(20'000, 1);
  const Json json = with(
      "/post_processor",
      {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", {{"s", {{"id", "s"}, {"ids", ids}}}}}});
  expect_refused("post_processor.single", [&] { load(json); });
}

TEST(TokenizerBounds, DecodersThatMultiply) {
  Json stages = Json::array();
  for (int i = 0; i < 12; ++i) {
    stages.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaaaa"}});
  }
  for (const bool fused : {false, true}) {
    Json chain = stages;
    if (fused) chain.insert(chain.begin(), Json{{"type", "Fuse"}});
    const Tokenizer tokenizer = load(with("/decoder", {{"type", "Sequence"}, {"decoders", chain}}));
    expect_refused("expands its input too much", [&] { tokenizer.decode(Ids{0}, false); });
    StreamDecoder decoder(tokenizer, false);
    expect_refused("expands its input too much", [&] {
      decoder.push(0);
      decoder.flush();
    });
  }
}

TEST(TokenizerBounds, LongTokensOverAndOver) {
  Json json = base();
  json["model"]["vocab"][std::string(1'000'000, 'b')] = 6;
  const Tokenizer tokenizer = load(json);
  EXPECT_EQ(tokenizer.decode(Ids{6, 6}, false).size(), 2'000'001U);
  expect_refused("expands its input too much", [&] { tokenizer.decode(Ids(100'000, 6), false); });
}

TEST(TokenizerBounds, SparseIds) {
  expect_refused("in a vocabulary of 7", [&] { load(with("/model/vocab/x", 16777215)); });
  EXPECT_EQ(load(with("/model/vocab/x", 65000)).vocab_size(), 65001);
}

TEST(TokenizerBounds, StopsOnceThereAreEnoughIds) {
  Json json = base();
  json["pre_tokenizer"] = split("b");
  const Tokenizer tokenizer = load(json);
  const std::string text = repeated("aab", kLong / 3);
  const Ids all = tokenizer.encode(text, false);
  const Ids some = tokenizer.encode(text, false, 1000);
  EXPECT_GT(some.size(), 1000U);
  EXPECT_LT(some.size(), 1010U);
  EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
  EXPECT_EQ(tokenizer.encode(text, false, all.size()), all);
  // Without a pre-tokenizer, too, where no token spans two of the words.
  EXPECT_LT(load(base()).encode(text, false, 1000).size(), 1010U);
}

TEST(TokenizerBounds, StopsWhenTheCallerReturnsFalse) {
  Json json = base();
  json["pre_tokenizer"] = split("b");
  const Tokenizer tokenizer = load(json);
  int questions = 0;
  const Ids some = tokenizer.encode(repeated("aab", kLong), false, SIZE_MAX, [&questions] { return ++questions < 3; });
  EXPECT_EQ(questions, 3);
  EXPECT_GT(some.size(), 1000U);
  EXPECT_LT(some.size(), kLong / 4);
}

TEST(MergeTable, HoldsEntriesConstructedToCollide) {
  // Pairs whose slots are close to each other with the table's first multiplier. A file could choose its ids this way.
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15ULL;
  std::vector<tok::MergeTable::Entry> entries;
  for (uint32_t key = 0; entries.size() < 4096; ++key) {
    const uint64_t pair = uint64_t{key % 4093} << 32 | (key / 4093);
    const uint64_t once = pair * kMultiplier;
    if (((once ^ once >> 32) * kMultiplier) >> 56 != 0) continue;
    entries.push_back({static_cast<int32_t>(key % 4093),
                       static_cast<int32_t>(key / 4093),
                       {static_cast<int32_t>(entries.size()), 7}});
  }
  const auto table = tok::MergeTable::make(entries);
  ASSERT_TRUE(table.has_value());
  for (const auto& entry : entries) {
    const auto* found = table->find(entry.left, entry.right);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->rank, entry.merge.rank);
  }
  EXPECT_EQ(table->find(5000, 5000), nullptr);
  EXPECT_EQ(tok::MergeTable().find(1, 2), nullptr);
  const auto twice = tok::MergeTable::make({{1, 2, {0, 3}}, {1, 2, {1, 4}}});
  EXPECT_EQ(twice->find(1, 2)->id, 4);
}

}  // namespace
}  // namespace eps::io
