#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "io/safetensors_files.h"

namespace eps {
namespace {

using test::aligned_safetensors_bytes;
using test::expect_input_error;
using test::safetensors_bytes;

SafetensorsHeader parse(const std::string& bytes) {
  return parse_safetensors_header(std::as_bytes(std::span(bytes)), "m.safetensors");
}

TEST(SafetensorsHeader, ReadsTensorsInFileOrder) {
  const auto header = parse(aligned_safetensors_bytes(
      R"({"z":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"BF16","shape":[1,2,1,2],"data_offsets":[8,16]}})",
      std::string(16, 'x')));
  ASSERT_EQ(header.tensors.size(), 2U);
  EXPECT_EQ(header.tensors[0].name, "z");
  EXPECT_EQ(header.tensors[0].begin, header.data_begin);
  EXPECT_EQ(header.tensors[1].name, "a");
  EXPECT_EQ(header.tensors[1].dtype, DType::kBF16);
  EXPECT_EQ(header.tensors[1].shape, Shape({1, 2, 1, 2}));
  EXPECT_EQ(header.tensors[1].end, header.data_begin + 16);
  EXPECT_EQ(header.metadata.at("format"), "pt");
}

TEST(SafetensorsHeader, AcceptsNoTensors) {
  EXPECT_TRUE(parse(safetensors_bytes("{}", "")).tensors.empty());
  EXPECT_TRUE(parse(safetensors_bytes("{\"__metadata__\":{}}  ", "")).tensors.empty());
}

TEST(SafetensorsHeader, AcceptsScalarsAndEmptyTensors) {
  const auto header =
      parse(aligned_safetensors_bytes(R"({"scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                                      R"("e0":{"dtype":"I64","shape":[0],"data_offsets":[0,0]},)"
                                      R"("e1":{"dtype":"F32","shape":[3,0,1000000],"data_offsets":[4,4]}})",
                                      "abcd"));
  ASSERT_EQ(header.tensors.size(), 3U);
  EXPECT_EQ(header.tensors[1].name, "scalar");
  EXPECT_EQ(header.tensors[1].shape.numel(), 1);
  EXPECT_EQ(header.tensors[0].num_bytes(), 0U);
  EXPECT_EQ(header.tensors[2].num_bytes(), 0U);
}

// One tensor "t" with the given fields and `data_bytes` of data.
std::string one(const std::string& fields, size_t data_bytes) {
  return aligned_safetensors_bytes("{\"t\":{" + fields + "}}", std::string(data_bytes, '\0'));
}

struct CorruptFile {
  std::string name;
  std::string bytes;
  std::vector<std::string> fragments;
};

TEST(SafetensorsHeader, RefusesCorruptFiles) {
  const std::string f32 = R"("dtype":"F32",)";
  const auto two = [](const std::string& a, const std::string& b, size_t data_bytes) {
    return aligned_safetensors_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + a +
                                         R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)" + b + "}}",
                                     std::string(data_bytes, '\0'));
  };
  std::string odd_header = R"({"t":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}})";
  if (odd_header.size() % 2 == 0) odd_header += ' ';
  const std::vector<CorruptFile> cases = {
      {"empty file", "", {"too short", "got 0 bytes"}},
      {"seven bytes", "1234567", {"too short", "got 7 bytes, wanted at least 8"}},
      {"length 0", test::length_prefix(0) + "{}", {"header length: got 0 bytes"}},
      {"length over the limit", test::length_prefix(100'000'001) + "{}", {"got 100000001 bytes", "100000000"}},
      {"length 2^64-1", test::length_prefix(UINT64_MAX) + "{}", {"got 18446744073709551615 bytes"}},
      {"length beyond the file", test::length_prefix(3) + "{}", {"longer than the file", "at most 2", "cut short"}},
      {"only a length", test::length_prefix(2), {"longer than the file", "at most 0"}},
      {"Git LFS pointer", "version https://git-lfs.github.com/spec/v1\n", {"Git LFS"}},
      {"list", safetensors_bytes("[]", ""), {"begins with: got \"[\""}},
      {"leading space", safetensors_bytes(" {}", ""), {"begins with: got \" \""}},
      {"broken JSON", safetensors_bytes("{\"t\":", ""), {"(header)", "not valid JSON"}},
      {"text after the object", safetensors_bytes("{}{}", ""), {"not valid JSON"}},
      {"NUL padding", safetensors_bytes(std::string("{}\0\0", 4), ""), {"NUL byte"}},
      {"invalid UTF-8", safetensors_bytes("{\"\xff\":1}", ""), {"invalid UTF-8"}},
      {"duplicate tensor", safetensors_bytes(R"({"t":1,"t":2})", ""), {"duplicate key \"t\""}},
      {"duplicate field", one(R"("dtype":"F32","dtype":"F16","shape":[],"data_offsets":[0,4])", 4), {"duplicate key"}},
      {"deep nesting", safetensors_bytes("{\"t\":" + std::string(50, '['), ""), {"nested too deeply"}},
      {"entry is a number", safetensors_bytes("{\"t\":1}", ""), {"tensor \"t\"", "got 1, wanted an object"}},
      {"metadata is a list", safetensors_bytes("{\"__metadata__\":[]}", ""), {"__metadata__", "got a list of 0"}},
      {"metadata value", safetensors_bytes("{\"__metadata__\":{\"a\":1}}", ""), {"\"a\": got 1, wanted a string"}},
      {"no dtype", one(R"("shape":[],"data_offsets":[0,4])", 4), {"missing key \"dtype\""}},
      {"no shape", one(f32 + R"("data_offsets":[0,4])", 4), {"missing key \"shape\""}},
      {"no offsets", one(f32 + R"("shape":[])", 4), {"missing key \"data_offsets\""}},
      {"unknown dtype",
       one(R"("dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4])", 4),
       {"tensor \"t\"", "unsupported dtype", "F8_E4M3", "F32, BF16 or F16"}},
      {"dtype is a number", one(R"("dtype":4,"shape":[4],"data_offsets":[0,4])", 4), {"dtype: got 4"}},
      {"shape is a number", one(f32 + R"("shape":1,"data_offsets":[0,4])", 4), {"shape: got 1, wanted a list"}},
      {"five dimensions", one(f32 + R"("shape":[1,1,1,1,1],"data_offsets":[0,4])", 4), {"5 dimensions", "at most 4"}},
      {"negative dimension", one(f32 + R"("shape":[1,-1],"data_offsets":[0,4])", 4), {"dimension 1", "got -1"}},
      {"fractional dimension", one(f32 + R"("shape":[1.5],"data_offsets":[0,6])", 6), {"dimension 0", "got 1.5"}},
      {"dimension as a float", one(f32 + R"("shape":[1.0],"data_offsets":[0,4])", 4), {"got 1.0"}},
      {"dimension 2^63", one(f32 + R"("shape":[9223372036854775808],"data_offsets":[0,4])", 4), {"2^63-1"}},
      {"product overflows to 4 bytes",
       one(f32 + R"("shape":[4294967296,4294967296,1],"data_offsets":[0,0])", 0),
       {"fewer than 2^63 bytes"}},
      {"bytes overflow", one(f32 + R"("shape":[4611686018427387904],"data_offsets":[0,0])", 0), {"fewer than 2^63"}},
      {"overflow hidden by a zero",
       one(f32 + R"("shape":[0,4294967296,4294967296],"data_offsets":[0,0])", 0),
       {"fewer than 2^63"}},
      {"one offset", one(f32 + R"("shape":[1],"data_offsets":[4])", 4), {"data_offsets", "two non-negative"}},
      {"negative offset", one(f32 + R"("shape":[1],"data_offsets":[-4,0])", 4), {"got [-4,0]"}},
      {"offset as text", one(f32 + R"("shape":[1],"data_offsets":["0",4])", 4), {"two non-negative"}},
      {"offsets reversed", one(f32 + R"("shape":[1],"data_offsets":[4,0])", 4), {"reversed data_offsets: got [4,0]"}},
      {"offsets out of range", one(f32 + R"("shape":[2],"data_offsets":[0,8])", 7), {"beyond the end", "at most 7"}},
      {"offsets near 2^64",
       one(f32 + R"("shape":[1],"data_offsets":[18446744073709551612,18446744073709551615])", 4),
       {"beyond the end"}},
      {"too few bytes for the shape", one(f32 + R"("shape":[2],"data_offsets":[0,4])", 4), {"got 4 bytes, wanted 8"}},
      {"too many bytes for the shape", one(f32 + R"("shape":[1],"data_offsets":[0,8])", 8), {"got 8 bytes, wanted 4"}},
      {"overlap", two("[0,8]", "[4,12]", 12), {"\"a\" and \"b\" overlap"}},
      {"same bytes twice", two("[0,8]", "[0,8]", 8), {"overlap"}},
      {"hole at the start", two("[4,12]", "[12,20]", 20), {"hole", "before tensor \"a\""}},
      {"hole in the middle", two("[0,8]", "[12,20]", 20), {"hole", "before tensor \"b\"", "begin at 12, wanted 8"}},
      {"data after the end", two("[0,8]", "[8,16]", 17), {"data after the last tensor: got 1 bytes"}},
      {"data without tensors", safetensors_bytes("{}", "x"), {"data after the last tensor"}},
      {"misaligned by the header", safetensors_bytes(odd_header, "ab"), {"misaligned", "multiple of 2 for bf16"}},
      {"misaligned by a neighbour",
       aligned_safetensors_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                 R"("b":{"dtype":"F16","shape":[1],"data_offsets":[1,3]}})",
                                 "abc"),
       {"tensor \"b\": misaligned"}},
  };
  for (const CorruptFile& corrupt : cases) {
    SCOPED_TRACE(corrupt.name);
    std::vector<std::string> fragments = corrupt.fragments;
    fragments.emplace_back("m.safetensors");
    expect_input_error([&] { parse(corrupt.bytes); }, fragments);
  }
}

TEST(SafetensorsHeader, RefusesEveryCutOfAGoodFile) {
  const std::string good = one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 8);
  ASSERT_NO_THROW(parse(good));
  for (size_t length = 0; length < good.size(); ++length) EXPECT_THROW(parse(good.substr(0, length)), Error) << length;
}

TEST(SafetensorsFile, ReadsWhatTheReferenceLibraryWrote) {
  const auto file = SafetensorsFile::open(EPSMOE_SOURCE_DIR "/tests/data/io/mixed.safetensors");
  ASSERT_EQ(file.tensors().size(), 8U);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  const auto view = [&](const char* name) {
    const TensorInfo* info = file.find(name);
    EPS_CHECK(info != nullptr, "{}", name);
    return file.view(*info);
  };
  EXPECT_EQ(view("f32").shape(), Shape({2, 3}));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(view("f32").as<const float>()[i], 0.5F * static_cast<float>(i));
  EXPECT_EQ(to_float(view("bf16").as<const bf16>()[1]), -2.5F);
  EXPECT_EQ(to_float(view("f16").as<const f16>()[1]), 65504.0F);
  EXPECT_EQ(view("i64").as<const int64_t>()[1], int64_t{1} << 40);
  EXPECT_EQ(view("i32").as<const int32_t>()[0], 7);
  EXPECT_EQ(view("u8").as<const uint8_t>()[2], 255);
  EXPECT_EQ(view("scalar").shape().rank(), 0);
  EXPECT_EQ(view("scalar").as<const float>()[0], 4.25F);
  EXPECT_EQ(view("empty").shape(), Shape({0, 5}));
  EXPECT_EQ(view("empty").num_bytes(), 0U);
  EXPECT_EQ(file.find("none"), nullptr);
}

TEST(SafetensorsFile, ReleasedAndMovedTensorsStayReadable) {
  constexpr int64_t kCount = 10'000;  // several pages
  std::string data(kCount * sizeof(float), '\0');
  for (int64_t i = 0; i < kCount; ++i) {
    const auto value = static_cast<float>(i);
    std::memcpy(data.data() + static_cast<size_t>(i) * sizeof(float), &value, sizeof(float));
  }
  const test::TempDir dir;
  const std::string path =
      dir.write("m.safetensors",
                aligned_safetensors_bytes(R"({"t":{"dtype":"F32","shape":[10000],"data_offsets":[0,40000]}})", data));
  auto opened = SafetensorsFile::open(path);
  const SafetensorsFile file = std::move(opened);
  const TensorView view = file.view(*file.find("t"));
  EXPECT_EQ(view.as<const float>()[kCount - 1], 9999.0F);
  file.release(*file.find("t"));
  for (int64_t i = 0; i < kCount; ++i) ASSERT_EQ(view.as<const float>()[i], static_cast<float>(i));
}

TEST(MappedFile, MapsEmptyFilesAndReportsMissingOnes) {
  const test::TempDir dir;
  const MappedFile empty = MappedFile::open(dir.write("empty", ""));
  EXPECT_TRUE(empty.bytes().empty());
  empty.advise_sequential();
  empty.release(0, 0);
  EXPECT_THROW(empty.release(0, 1), Error);
  const MappedFile one_byte = MappedFile::open(dir.write("one", "x"));
  one_byte.advise_sequential();
  one_byte.release(0, 1);
  EXPECT_EQ(one_byte.bytes()[0], std::byte{'x'});
  expect_input_error([&] { MappedFile::open(dir.file("none")); }, {"none", "No such file"});
  expect_input_error([&] { MappedFile::open(dir.path()); }, {"a directory"});
  expect_input_error([&] { MappedFile::open("/dev/null"); }, {"wanted a regular file"});
}

}  // namespace
}  // namespace eps
