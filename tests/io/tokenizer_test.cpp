#include "io/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "io/json.h"
#include "io/tokenizer/decoder.h"

namespace eps::io {
namespace {

const std::string kData = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/tokenizer/";

using Ids = std::vector<int32_t>;

// A tokenizer of five letters and three merges, to be varied.
Json small() {
  return parse_json(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 9, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
                   {"type": "Replace", "pattern": {"Regex": "\\s"}, "content": "_"}]},
    "pre_tokenizer": {"type": "Split", "pattern": {"String": "_"}, "behavior": "MergedWithNext", "invert": false},
    "post_processor": {"type": "TemplateProcessing",
                       "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                       "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [9], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": "?", "fuse_unk": true, "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "c": 2, "_": 3, "?": 4, "ab": 5, "bc": 6, "abc": 7, "_a": 8},
              "merges": ["b c", ["a", "b"], "a bc"]}})",
                    "small");
}

Tokenizer load(const Json& json) { return Tokenizer::from_json(json.dump(), "t.json"); }

void expect_refused(const Json& json, const std::string& fragment) {
  try {
    load(json);
    ADD_FAILURE() << "accepted; wanted: " << fragment;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(std::string(error.what()).find("t.json"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(fragment), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
}

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
  const Tokenizer tokenizer = load(small());
  EXPECT_EQ(tokenizer.encode("abc", false), (Ids{7}));  // b c first, then a bc
  EXPECT_EQ(tokenizer.encode("ab", false), (Ids{5}));
  EXPECT_EQ(tokenizer.encode("abab c", false), (Ids{5, 5, 3, 2}));
  EXPECT_EQ(tokenizer.encode("xyb", false), (Ids{4, 1}));  // fused unknowns
  EXPECT_EQ(tokenizer.encode("", false), Ids{});
  EXPECT_EQ(tokenizer.encode("", true), (Ids{9}));
  EXPECT_EQ(tokenizer.encode("a<s>b", true), (Ids{9, 0, 9, 1}));
}

TEST(Tokenizer, LooksUpTokens) {
  const Tokenizer tokenizer = load(small());
  EXPECT_EQ(tokenizer.vocab_size(), 10);
  EXPECT_EQ(tokenizer.token_to_id("abc"), 7);
  EXPECT_EQ(tokenizer.token_to_id("<s>"), 9);
  EXPECT_EQ(tokenizer.token_to_id("abcd"), std::nullopt);
  EXPECT_EQ(tokenizer.id_to_token(7), "abc");
  EXPECT_EQ(tokenizer.id_to_token(9), "<s>");
  EXPECT_EQ(tokenizer.id_to_token(10), "");
  EXPECT_EQ(tokenizer.id_to_token(-1), "");
  EXPECT_TRUE(tokenizer.is_special(9));
  EXPECT_FALSE(tokenizer.is_special(7));
  EXPECT_FALSE(tokenizer.is_special(-5));
}

TEST(Tokenizer, DecodesAndSkipsUnknownIds) {
  const Tokenizer tokenizer = load(small());
  EXPECT_EQ(tokenizer.decode(Ids{9, 3, 7, -1, 99, 3, 0, 3}, true), "abc a");
  EXPECT_EQ(tokenizer.decode(Ids{9, 3, 7}, false), "<s> abc");
  EXPECT_EQ(tokenizer.decode(Ids{}, false), "");
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = load(small());
  for (const std::string_view bad : {"ab\xff", "ab\xc3", "ab\xed\xa0\x80", "ab\xc0\x80"}) {
    try {
      tokenizer.encode(bad, false);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      EXPECT_NE(std::string(error.what()).find("byte 2"), std::string::npos) << error.what();
    }
  }
}

TEST(Tokenizer, NamesUnsupportedParts) {
  const auto with = [](const char* pointer, const Json& value) {
    Json json = small();
    json[Json::json_pointer(pointer)] = value;
    return json;
  };
  expect_refused(with("/model/type", "Unigram"), "Unigram");
  expect_refused(with("/model/dropout", 0.1), "dropout");
  expect_refused(with("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix");
  expect_refused(with("/normalizer", {{"type", "Precompiled"}}), "Precompiled");
  expect_refused(with("/normalizer/normalizers/0", {{"type", "Nmt"}}), "normalizers[0]");
  expect_refused(with("/pre_tokenizer", {{"type", "UnicodeScripts"}}), "UnicodeScripts");
  expect_refused(with("/pre_tokenizer/behavior", "Sideways"), "Sideways");
  expect_refused(with("/pre_tokenizer/pattern", {{"Regex", "(a"}}), "does not compile");
  expect_refused(with("/post_processor", {{"type", "BertProcessing"}}), "BertProcessing");
  expect_refused(with("/decoder", {{"type", "WordPiece"}}), "WordPiece");
  expect_refused(with("/version", "2.0"), "version");
}

TEST(Tokenizer, RefusesInconsistentVocabularies) {
  const auto with = [](const char* pointer, const Json& value) {
    Json json = small();
    json[Json::json_pointer(pointer)] = value;
    return json;
  };
  expect_refused(with("/model/vocab/a", -1), "a");
  expect_refused(with("/model/vocab/a", 4294967296), "4294967296");
  expect_refused(with("/model/vocab/a", 2147483647), "2147483647");
  expect_refused(with("/model/vocab/a", 1), "a unique id");
  expect_refused(with("/model/vocab/a", "0"), "0");
  expect_refused(with("/model/merges/0", "b  c"), "merges[0]");
  expect_refused(with("/model/merges/0", "bc"), "merges[0]");
  expect_refused(with("/model/merges/0", "b z"), "z");
  expect_refused(with("/model/merges/0", "c b"), "cb");
  expect_refused(with("/model/merges/1", Json::array({"a", "b", "c"})), "merges[1]");
  expect_refused(with("/model/merges", "a b"), "merges");
  expect_refused(with("/added_tokens/0/id", 11), "added_tokens[0].id");
  expect_refused(with("/added_tokens/0/id", -1), "added_tokens[0].id");
  expect_refused(with("/post_processor/special_tokens/<s>/ids/0", 10), "ids");
  expect_refused(with("/post_processor/single/1", {{"Sequence", {{"id", "B"}}}}), "single");
}

// Any value anywhere in the file gives an error of kind input or a tokenizer that works.
void replace_everywhere(Json& node, const Json& root) {
  const auto attempt = [&root] {
    try {
      const Tokenizer tokenizer = load(root);
      tokenizer.decode(tokenizer.encode("a b\n\u00e9<s>xabc", true), false);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput) << error.what();
    }
  };
  const Json before = node;
  for (const Json& value : {Json(), Json(true), Json(-1), Json(0), Json(1e300), Json(int64_t{1} << 40), Json(""),
                            Json("a"), Json("Sequence"), Json("ByteLevel"), Json::array(), Json::array({1, "a"}),
                            Json::object(), Json({{"type", "Sequence"}})}) {
    node = value;
    attempt();
  }
  node = before;
  if (!node.is_structured()) return;
  for (auto& child : node) replace_everywhere(child, root);
  if (node.is_object()) {
    for (const auto& [key, value] : before.items()) {
      node.erase(key);
      attempt();
      node[key] = value;
    }
  }
}

TEST(Tokenizer, SurvivesAnyValueAnywhere) {
  Json json = small();
  replace_everywhere(json, json);
  EXPECT_EQ(json, small());
}

TEST(Tokenizer, RefusesDeepNesting) {
  std::string open;
  std::string close;
  for (int i = 0; i < 100000; ++i) {
    open += R"({"type":"Sequence","normalizers":[)";
    close += "]}";
  }
  EXPECT_THROW(Tokenizer::from_json(R"({"normalizer":)" + open + R"({"type":"NFC"})" + close + "}", "t.json"), Error);
}

TEST(Tokenizer, OldMetaspaceFieldMeansNever) {
  Json json = small();
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}};
  EXPECT_EQ(load(json).encode("a b", false), (Ids{0, 3, 1}));
  json["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_EQ(load(json).encode("a b", false), (Ids{3, 0, 3, 1}));
  json["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}, {"prepend_scheme", "always"}};
  expect_refused(json, "prepend_scheme");
}

TEST(Tokenizer, UnknownTokenThatIsMissingIsAnErrorWhenNeeded) {
  Json json = small();
  json["model"]["unk_token"] = "<nope>";
  const Tokenizer tokenizer = load(json);
  EXPECT_EQ(tokenizer.encode("a", false), (Ids{0}));
  EXPECT_THROW(tokenizer.encode("x", false), Error);
  json["model"]["unk_token"] = nullptr;
  EXPECT_EQ(load(json).encode("xa", false), (Ids{0}));
}

TEST(Tokenizer, LongWordsTakeLinearTimeOrNearly) {
  const Tokenizer tokenizer = Tokenizer::from_file(kData + "llama2.json");
  const auto seconds_for = [&tokenizer](size_t length) {
    std::string text;
    for (size_t i = 0; i < length; ++i) text += static_cast<char>('a' + (i * i + i / 7) % 26);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_GT(tokenizer.encode(text, false).size(), length / 8);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  seconds_for(1 << 14);
  // A quadratic merge takes minutes for the megabyte; the bound allows for a slow machine under sanitizers.
  EXPECT_LT(seconds_for(1 << 20), 20.0);
}

TEST(Tokenizer, ManyThreadsMayUseOne) {
  const Tokenizer tokenizer = Tokenizer::from_file(kData + "llama3.json");
  const std::string text = "Some text, with 12345 numbers\n\n and \u4e2d\u6587 <|end|>";
  const Ids expected = tokenizer.encode(text, true);
  std::vector<std::thread> threads;
  std::vector<int> same(4, 0);
  for (size_t t = 0; t < same.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) same[t] += tokenizer.encode(text, true) == expected ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, (std::vector<int>(4, 50)));
}

TEST(StreamDecoder, HoldsBackPartsOfCharacters) {
  const Tokenizer tokenizer = Tokenizer::from_file(kData + "gpt2.json");
  StreamDecoder decoder(tokenizer, true);
  Ids bytes;
  for (const std::string_view token : {"\u00f0", "\u0141", "\u013b", "\u0124", "a"}) {  // f0 9f 99 82 in the alphabet
    ASSERT_TRUE(tokenizer.token_to_id(token)) << token;
    bytes.push_back(*tokenizer.token_to_id(token));
  }
  EXPECT_EQ(decoder.push(bytes[0]), "");
  EXPECT_EQ(decoder.push(bytes[1]), "");
  EXPECT_EQ(decoder.push(bytes[2]), "");
  EXPECT_EQ(decoder.push(bytes[3]), tokenizer.decode(Ids(bytes.begin(), bytes.begin() + 4), true));
  EXPECT_EQ(decoder.push(bytes[0]), "");
  EXPECT_EQ(decoder.push(bytes[4]),
            "\ufffd"
            "a");
  EXPECT_EQ(decoder.push(bytes[0]), "");
  EXPECT_EQ(decoder.flush(), "\ufffd");
  EXPECT_EQ(decoder.flush(), "");
  EXPECT_EQ(decoder.push(bytes[4]), "a");
}

TEST(StreamDecoder, ByteRunsAreFinalOnlyAtTheirEnd) {
  const Tokenizer tokenizer = Tokenizer::from_file(kData + "llama2.json");
  const auto id = [&](std::string_view token) { return tokenizer.token_to_id(token).value(); };
  StreamDecoder decoder(tokenizer, true);
  EXPECT_EQ(decoder.push(id("<0xC3>")), "");
  EXPECT_EQ(decoder.push(id("<0xA9>")), "");
  EXPECT_EQ(decoder.push(id("a")),
            "\u00e9"
            "a");
  EXPECT_EQ(decoder.push(id("<0xC3>")), "");
  EXPECT_EQ(decoder.push(id("<0xA9>")), "");
  EXPECT_EQ(decoder.push(id("<0xFF>")), "");
  EXPECT_EQ(decoder.flush(), "\ufffd\ufffd\ufffd");
}

TEST(StreamDecoder, OutlivesTheTokenizer) {
  auto tokenizer = std::make_unique<Tokenizer>(Tokenizer::from_file(kData + "gpt2.json"));
  const Ids ids = tokenizer->encode("text", false);
  StreamDecoder decoder(*tokenizer, true);
  tokenizer.reset();
  std::string out;
  for (const int32_t id : ids) out += decoder.push(id);
  EXPECT_EQ(out + decoder.flush(), " text");
}

TEST(Decoder, StreamingGivesTheDecodedTextForEveryChain) {
  const std::vector<std::string> tokens = {"  a",    "_b ", "<0xE4>", "<0xBD>", "<0xA0>", "c__", "", "<0x20>",
                                           "<0xFF>", " ",   "  ",     "<0x2B>", "\u00e9", "x ",  " "};
  const std::vector<std::string> stages = {R"({"type":"ByteLevel"})",
                                           R"({"type":"ByteFallback"})",
                                           R"({"type":"Fuse"})",
                                           R"({"type":"Strip","content":" ","start":2,"stop":2})",
                                           R"({"type":"Metaspace","replacement":"_"})",
                                           R"({"type":"Replace","pattern":{"String":"_"},"content":" "})"};
  for (const std::string& first : stages) {
    for (const std::string& second : stages) {
      const Json json = parse_json(R"({"type":"Sequence","decoders":[)" + first + "," + second + "]}", "test");
      const tok::Decoder decoder{JsonObject(json, "test")};
      tok::Decoder::Run run(decoder);
      std::string out;
      for (const std::string& token : tokens) {
        run.push(token, out);
        EXPECT_EQ(utf8_find_invalid(out), std::string::npos);
      }
      run.finish(out);
      EXPECT_EQ(utf8_find_invalid(out), std::string::npos);
      EXPECT_FALSE(out.empty());
    }
  }
}

TEST(Decoder, StripsTheEndOfAFusedText) {
  const Json json = parse_json(
      R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":2}]})", "test");
  const tok::Decoder decoder{JsonObject(json, "test")};
  tok::Decoder::Run run(decoder);
  std::string out;
  for (const std::string_view token : {" ", " a ", " ", " ", "b ", "  "}) run.push(token, out);
  EXPECT_EQ(out, " a   b ");
  run.finish(out);
  EXPECT_EQ(out, " a   b ");
}

TEST(ToValidUtf8, ReplacesMaximalParts) {
  EXPECT_EQ(tok::to_valid_utf8("a\xff"
                               "b"),
            "a\ufffd"
            "b");
  EXPECT_EQ(tok::to_valid_utf8("\xe4\xbd"
                               "a"),
            "\ufffd"
            "a");
  EXPECT_EQ(tok::to_valid_utf8("\xf0\x9f\x99"), "\ufffd");
  EXPECT_EQ(tok::to_valid_utf8("\xed\xa0\x80"), "\ufffd\ufffd\ufffd");
  EXPECT_EQ(tok::to_valid_utf8("\xf4\x90\x80\x80"), "\ufffd\ufffd\ufffd\ufffd");
  EXPECT_EQ(tok::to_valid_utf8("\xc0\xaf"), "\ufffd\ufffd");
}

}  // namespace
}  // namespace eps::io
