// Compares ids and decoded text with those of the reference library (tools/make_tokenizer_golden.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "io/file.h"
#include "io/json.h"
#include "io/tokenizer.h"

namespace eps::io {
namespace {

const std::string kRoot = EPSMOE_SOURCE_DIR;
const std::string kData = kRoot + "/tests/data/tokenizer";

constexpr uint64_t kFnvStart = 0xcbf29ce484222325ULL;

uint64_t fnv1a(std::string_view bytes, uint64_t state = kFnvStart) {
  for (const char byte : bytes) state = (state ^ static_cast<unsigned char>(byte)) * 0x100000001b3ULL;
  return state;
}

uint64_t hash_ids(const std::vector<int32_t>& ids, uint64_t state) {
  std::string bytes;
  const auto put = [&bytes](int32_t id) {
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(static_cast<uint32_t>(id) >> shift));
  };
  for (const int32_t id : ids) put(id);
  put(-1);
  return fnv1a(bytes, state);
}

struct Golden {
  size_t count;
  uint64_t ids;
  uint64_t text;
};

std::vector<Golden> read_golden(const std::string& name) {
  std::ifstream file(kData + "/" + name + ".golden");
  std::vector<Golden> lines;
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with('#')) continue;
    std::istringstream fields(line);
    Golden golden{};
    fields >> golden.count >> std::hex >> golden.ids >> golden.text;
    EXPECT_TRUE(fields) << name << ": " << line;
    lines.push_back(golden);
  }
  return lines;
}

const std::vector<std::string>& strings() {
  static const std::vector<std::string> all = [] {
    std::ifstream file(kData + "/strings.jsonl");
    std::vector<std::string> texts;
    std::string line;
    while (std::getline(file, line)) texts.push_back(parse_json(line, "strings.jsonl").get<std::string>());
    return texts;
  }();
  return all;
}

std::string stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string out;
  for (const int32_t id : ids) {
    const std::string part = decoder.push(id);
    EXPECT_EQ(utf8_find_invalid(part), std::string::npos);
    out += part;
  }
  return out + decoder.flush();
}

void compare(const std::string& name, const Tokenizer& tokenizer) {
  const std::vector<Golden> golden = read_golden(name);
  ASSERT_GE(strings().size(), 500U);
  ASSERT_EQ(golden.size(), strings().size()) << name;
  for (size_t i = 0; i < golden.size(); ++i) {
    SCOPED_TRACE(fmt::format("{}, string {}: {}", name, i, printable(strings()[i])));
    const std::vector<int32_t> plain = tokenizer.encode(strings()[i], false);
    const std::vector<int32_t> special = tokenizer.encode(strings()[i], true);
    EXPECT_EQ(plain.size(), golden[i].count);
    EXPECT_EQ(hash_ids(special, hash_ids(plain, kFnvStart)), golden[i].ids) << fmt::format("{}", fmt::join(plain, " "));
    const std::string kept = tokenizer.decode(special, false);
    const std::string skipped = tokenizer.decode(special, true);
    EXPECT_EQ(fnv1a(kept + std::string(1, '\0') + skipped), golden[i].text) << printable(kept);
    EXPECT_EQ(stream(tokenizer, special, false), kept);
    EXPECT_EQ(stream(tokenizer, special, true), skipped);
    if (::testing::Test::HasFailure()) {
      if (std::getenv("EPSMOE_TEST_ALL") == nullptr) return;  // one difference tends to cause hundreds
    }
  }
}

std::vector<std::string> synthetic_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kData)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem());
  }
  std::ranges::sort(names);
  return names;
}

class Synthetic : public ::testing::TestWithParam<std::string> {};

TEST_P(Synthetic, SameIds) { compare(GetParam(), Tokenizer::from_file(join_path(kData, GetParam() + ".json"))); }

INSTANTIATE_TEST_SUITE_P(TokenizerGolden, Synthetic, ::testing::ValuesIn(synthetic_names()),
                         [](const auto& instance) { return instance.param; });

TEST(TokenizerGolden, HasSyntheticTokenizers) { EXPECT_GE(synthetic_names().size(), 16U); }

TEST(TokenizerGolden, DemoModel) { compare("demo", Tokenizer::from_file(kRoot + "/models/austen-moe/tokenizer.json")); }

class ThirdParty : public ::testing::TestWithParam<std::string> {};

TEST_P(ThirdParty, SameIds) {
  const char* dir = std::getenv("EPSMOE_TOKENIZER_DIR");
  const std::string path =
      join_path(dir != nullptr ? dir : kRoot + "/.cache/tokenizers", GetParam() + "/tokenizer.json");
  if (dir == nullptr && !file_exists(path)) {
    GTEST_SKIP() << "no " << path << "; tools/fetch_tokenizers.sh gets it, or set EPSMOE_TOKENIZER_DIR";
  }
  compare("third_party_" + GetParam(), Tokenizer::from_file(path));
}

INSTANTIATE_TEST_SUITE_P(TokenizerGolden, ThirdParty,
                         ::testing::Values("dbrx", "deepseek", "gpt_oss", "mixtral", "olmoe", "qwen", "tekken"),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace eps::io
