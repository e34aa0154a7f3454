#include "io/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "io/safetensors_files.h"

namespace eps::io {
namespace {

using test::expect_input_error;

Json parse(std::string_view text) { return parse_json(text, "test.json"); }

TEST(ParseJson, ReadsEveryKindOfValue) {
  const Json json = parse(R"( {"a": [1, -2, 2.5, true, false, null, "x\u00e9\n"], "b": {"c": {}}, "d": []} )");
  EXPECT_EQ(json["a"].size(), 7U);
  EXPECT_EQ(json["a"][1].get<int>(), -2);
  EXPECT_EQ(json["a"][6].get<std::string>(), "x\xc3\xa9\n");
  EXPECT_TRUE(json["b"]["c"].is_object());
  EXPECT_TRUE(json["d"].empty());
  EXPECT_EQ(parse("18446744073709551615").get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(parse("\"top\"").get<std::string>(), "top");
}

TEST(ParseJson, KeepsNestedValuesApart) {
  const Json json = parse(R"([[1, [2]], {"a": [3, {"b": 4}], "c": 5}, 6])");
  EXPECT_EQ(json.dump(), R"([[1,[2]],{"a":[3,{"b":4}],"c":5},6])");
}

TEST(ParseJson, ReadsPythonsLiteralsWhereTheyAreAllowed) {
  const auto python = [](std::string_view text) { return parse_json(text, "config.json", kPythonJson); };
  const Json json = python(R"({"a": [0.0, Infinity], "NaN": "NaN, -Infinity \"Infinity", "b": NaN,
    "c": {"d": -Infinity}, "e": 0e0, "f": -1e000000, "g":NaN,"h":Infinity})");
  EXPECT_EQ(json["a"][0].get<double>(), 0.0);
  EXPECT_EQ(json["a"][1].get<double>(), HUGE_VAL);
  EXPECT_EQ(json["NaN"], "NaN, -Infinity \"Infinity");
  EXPECT_TRUE(std::isnan(json["b"].get<double>()));
  EXPECT_EQ(json["c"]["d"].get<double>(), -HUGE_VAL);
  EXPECT_EQ(json["e"].get<double>(), 0.0) << "the spelling that stands in for NaN";
  EXPECT_EQ(json["f"].get<double>(), -1.0);
  EXPECT_TRUE(std::isnan(json["g"].get<double>()));
  EXPECT_EQ(json["h"].get<double>(), HUGE_VAL);
  EXPECT_TRUE(std::isnan(python("NaN").get<double>()));
  EXPECT_EQ(python(" -Infinity ").get<double>(), -HUGE_VAL);
  EXPECT_EQ(describe_json(json["a"][1]), "Infinity");
  for (const char* bad :
       {"nan", "inf", "+Infinity", "Infinit", "-NaN", "[NaNNaN]", "[1Infinity]", "Infinity Infinity"}) {
    expect_input_error([&] { python(bad); }, {"config.json", "not valid JSON"});
  }
  // When they are used, they are refused by name.
  const JsonObject object(json, "config.json");
  expect_input_error([&] { object.get<double>("b"); }, {"key \"b\": got NaN, wanted a finite number"});
  expect_input_error([&] { object.get<float>("h"); }, {"key \"h\": got Infinity, wanted a finite number"});
  expect_input_error([&] { object.get<int>("b"); }, {"key \"b\": got NaN"});
  expect_input_error([&] { object.positive_int("h"); }, {"key \"h\": got Infinity"});
  expect_input_error([&] { object.get<std::vector<double>>("a"); }, {"got Infinity as element 1"});
}

struct BadJson {
  std::string text;
  std::string fragment;
};

TEST(ParseJson, RefusesTextThatIsNotStrictJson) {
  const std::vector<BadJson> cases = {
      {"", "line 1, column 1"},
      {"{", "not valid JSON"},
      {"{\"a\": 1,}", "line 1, column 9"},
      {"{\n  \"a\": 1\n  \"b\": 2\n}", "line 3"},
      {"{} {}", "not valid JSON"},
      {"[1] x", "not valid JSON"},
      {"NaN", "not valid JSON"},
      {"[Infinity]", "not valid JSON"},
      {"[-Infinity]", "not valid JSON"},
      {"1e999", "not valid JSON"},
      {"[01]", "not valid JSON"},
      {"[.5]", "not valid JSON"},
      {"{'a': 1}", "not valid JSON"},
      {"// c\n{}", "not valid JSON"},
      {"\"\\ud800\"", "not valid JSON"},
      {"\"a\tb\"", "not valid JSON"},
      {"\"\xff\"", "invalid UTF-8 at line 1, column 2"},
      {"{\"a\": \"\xc0\x80\"}", "invalid UTF-8"},
      {std::string("{}\0garbage", 10), "NUL byte"},
      {std::string("\"a\0b\"", 5), "NUL byte"},
      {R"({"a": 1, "a": 2})", "duplicate key \"a\" at line 1, column 12"},
      {R"({"x": [{"y": {"k": 1, "k": 1}}]})", "duplicate key \"k\""},
      {R"({"a": 1, "\u0061": 2})", "duplicate key \"a\""},
  };
  for (const BadJson& bad : cases) {
    SCOPED_TRACE(bad.text);
    expect_input_error([&] { parse(bad.text); }, {"test.json: ", bad.fragment});
  }
}

TEST(ParseJson, AcceptsTheSameKeyInDifferentObjects) { EXPECT_NO_THROW(parse(R"([{"a": 1}, {"a": {"a": 2}}])")); }

TEST(ParseJson, LimitsDepthAndSize) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(4), "t", {.max_bytes = 100, .max_depth = 4}));
  expect_input_error([&] { parse_json(nested(5), "t", {.max_bytes = 100, .max_depth = 4}); },
                     {"nested too deeply at line 1, column 5", "at most 4 levels"});
  expect_input_error([&] { parse(std::string(1'000'000, '[')); }, {"nested too deeply"});
  expect_input_error([&] { parse_json("[1, 2, 3]", "t", {.max_bytes = 8, .max_depth = 4}); },
                     {"too large: got 9 bytes, wanted at most 8"});
}

TEST(ReadJsonFile, NamesTheFileInEveryError) {
  const test::TempDir dir;
  EXPECT_EQ(read_json_file(dir.write("good.json", "{\"a\": 1}"))["a"].get<int>(), 1);
  const std::string bad = dir.write("bad.json", "{\n\"a\": }");
  expect_input_error([&] { read_json_file(bad); }, {bad, "line 2, column 6"});
  expect_input_error([&] { read_json_file(dir.file("none.json")); }, {"none.json", "No such file", "try"});
  expect_input_error([&] { read_json_file(dir.path()); }, {"a directory", "wanted a file"});
  expect_input_error([&] { read_json_file(dir.write("empty.json", "")); }, {"empty.json", "not valid JSON"});
  expect_input_error([&] { read_json_file(bad, {.max_bytes = 3, .max_depth = 3}); }, {"too large", "at most 3"});
}

class JsonObjectTest : public ::testing::Test {
 protected:
  Json json_ = parse(R"({"i": 7, "neg": -3, "zero": 0, "frac": 2.5, "round": 2.0, "exp": 2e3, "big": 4294967296,
    "huge": 18446744073709551615, "f": 1e300, "s": "text", "b": true, "null": null, "ids": [1, 2, 3],
    "mixed": [1, "two"], "o": {"inner": {"x": "y"}}, "list": [{"k": 1}, {"k": "bad"}], "not_objects": [1]})");
  JsonObject object_{json_, "config.json"};
};

TEST_F(JsonObjectTest, ReadsTypedValues) {
  EXPECT_EQ(object_.get<int>("i"), 7);
  EXPECT_EQ(object_.get<int64_t>("big"), 4294967296);
  EXPECT_EQ(object_.get<double>("i"), 7.0);
  EXPECT_EQ(object_.get<float>("frac"), 2.5F);
  EXPECT_EQ(object_.get<std::string>("s"), "text");
  EXPECT_TRUE(object_.get<bool>("b"));
  EXPECT_EQ(object_.get<std::vector<int>>("ids"), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(object_.child("o").child("inner").get<std::string>("x"), "y");
  EXPECT_EQ(object_.children("list")[0].get<int>("k"), 1);
}

TEST_F(JsonObjectTest, TreatsNullAsAbsent) {
  for (const char* key : {"null", "no_such_key"}) {
    EXPECT_FALSE(object_.has(key));
    EXPECT_FALSE(object_.optional<int>(key).has_value());
    EXPECT_FALSE(object_.optional_child(key).has_value());
    EXPECT_EQ(object_.get_or<double>(key, 1e4), 1e4);
  }
  EXPECT_EQ(object_.optional<int>("i"), 7);
  expect_input_error([&] { object_.get<int>("null"); }, {"config.json: key \"null\": got null, wanted an integer"});
  expect_input_error([&] { object_.get<int>("no_such_key"); }, {"missing key \"no_such_key\": wanted an integer"});
}

TEST_F(JsonObjectTest, RefusesNumbersThatAreNotIntegers) {
  for (const char* key : {"frac", "round", "exp", "f", "s", "b", "ids", "o", "huge"}) {
    SCOPED_TRACE(key);
    expect_input_error([&] { object_.get<int64_t>(key); }, {"config.json: key \"" + std::string(key) + "\": got "});
  }
  expect_input_error([&] { object_.get<int>("big"); }, {"got 4294967296, wanted an integer of 32 bits"});
}

TEST_F(JsonObjectTest, ChecksRanges) {
  EXPECT_EQ(object_.positive_int("i", 7), 7);
  EXPECT_EQ(object_.non_negative_int("zero"), 0);
  expect_input_error([&] { object_.positive_int("i", 6); }, {"got 7, wanted an integer from 1 to 6"});
  expect_input_error([&] { object_.positive_int("zero"); }, {"got 0, wanted an integer of at least 1"});
  expect_input_error([&] { object_.positive_int("neg"); }, {"got -3"});
  expect_input_error([&] { object_.positive_int("frac"); }, {"got 2.5"});
  expect_input_error([&] { object_.positive_int("huge"); }, {"got 18446744073709551615"});
  expect_input_error([&] { object_.non_negative_int("neg"); }, {"at least 0"});
}

TEST_F(JsonObjectTest, RefusesOtherTypes) {
  expect_input_error([&] { object_.get<float>("f"); }, {"a number"});
  expect_input_error([&] { object_.get<double>("s"); }, {"got \"text\", wanted a number"});
  expect_input_error([&] { object_.get<bool>("i"); }, {"got 7, wanted true or false"});
  expect_input_error([&] { object_.get<std::string>("i"); }, {"got 7, wanted a string"});
  expect_input_error([&] { object_.get<std::vector<int>>("i"); }, {"got 7, wanted a list"});
  expect_input_error([&] { object_.get<std::vector<int>>("mixed"); }, {"\"two\" as element 1"});
  expect_input_error([&] { object_.child("i"); }, {"key \"i\": got 7, wanted an object"});
  expect_input_error([&] { object_.children("not_objects"); }, {"key \"not_objects[0]\": got 1, wanted an object"});
  expect_input_error([&] { object_.children("o"); }, {"wanted a list of objects"});
}

TEST_F(JsonObjectTest, NamesNestedKeys) {
  expect_input_error([&] { object_.child("o").child("inner").get<int>("x"); }, {"key \"o.inner.x\": got \"y\""});
  expect_input_error([&] { object_.children("list")[1].get<int>("k"); }, {"key \"list[1].k\": got \"bad\""});
}

TEST(JsonObject, RefusesATopLevelThatIsNotAnObject) {
  const Json list = parse("[1, 2]");
  expect_input_error([&] { JsonObject(list, "config.json"); }, {"config.json: the content: got a list of 2"});
}

TEST(Json, DumpsNoTerminalControlCharacters) {
  const std::string text = "\x1b[31m\x7f\u009b\u202e\u200b\U000e0041 é 中 🙂 \\ \"";
  const std::string line = dump_json(Json{{"key", text}});
  EXPECT_EQ(line, R"({"key":"\u001b[31m\u007f\u009b\u202e\u200b\udb40\udc41 é 中 🙂 \\ \""})");
  EXPECT_EQ(parse_json(line, "test").at("key").get<std::string>(), text);
  EXPECT_EQ(dump_json(Json{{"\u202e", 1}}, 2), "{\n  \"\\u202e\": 1\n}");
  EXPECT_EQ(dump_json(Json("\xff")), "\"\ufffd\"");
}

}  // namespace
}  // namespace eps::io
