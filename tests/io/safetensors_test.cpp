#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <vector>

#include "io/safetensors_files.h"

namespace eps::io {
namespace {

using test::aligned_safetensors_bytes;
using test::expect_input_error;
using test::safetensors_bytes;

const std::string kWhere = "m.safetensors";

SafetensorsHeader parse(const std::string& bytes) {
  const auto all = std::as_bytes(std::span(bytes));
  const uint64_t length =
      safetensors_header_length(all.first(std::min<size_t>(all.size(), kSafetensorsLengthBytes)), all.size(), kWhere);
  return parse_safetensors_header(std::string_view(bytes).substr(kSafetensorsLengthBytes, length), all.size(), kWhere);
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
  EXPECT_EQ(tensor_type(header.tensors[1], kWhere).dtype, DType::kBF16);
  EXPECT_EQ(tensor_type(header.tensors[1], kWhere).shape, Shape({1, 2, 1, 2}));
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
  EXPECT_EQ(header.tensors[1].num_elements, 1U);
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
      {"dtype is a number", one(R"("dtype":4,"shape":[4],"data_offsets":[0,4])", 4), {"dtype: got 4"}},
      {"shape is a number", one(f32 + R"("shape":1,"data_offsets":[0,4])", 4), {"shape: got 1, wanted a list"}},
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
      {"too few bytes of a dtype that is not used",
       one(R"("dtype":"F64","shape":[2],"data_offsets":[0,8])", 8),
       {"got 8 bytes, wanted 16 bytes for f64 [2]"}},
      {"too few packed elements",
       one(R"("dtype":"F4","shape":[3,3],"data_offsets":[0,4])", 4),
       {"got 4 bytes, wanted 5"}},
  };
  for (const CorruptFile& corrupt : cases) {
    SCOPED_TRACE(corrupt.name);
    std::vector<std::string> fragments = corrupt.fragments;
    fragments.emplace_back("m.safetensors");
    expect_input_error([&] { parse(corrupt.bytes); }, fragments);
  }
}

// The header may have any length, and a tensor any offset, as in files written by MLX and others.
TEST(SafetensorsFile, ReadsDataAtAnyOffset) {
  const test::TempDir dir;
  const float value = 1.5F;
  const std::string bytes(reinterpret_cast<const char*>(&value), sizeof(value));
  for (int spaces = 0; spaces < 8; ++spaces) {
    const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                               R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})" +
                               std::string(static_cast<size_t>(spaces), ' ');
    const SafetensorsFile file = SafetensorsFile::open(dir.write("m", safetensors_bytes(header, "x" + bytes)));
    const OwnedTensor tensor = file.read(*file.find("b"));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.view.data()) % 64, 0U);
    EXPECT_EQ(tensor.view.as<const float>()[0], 1.5F) << spaces;
  }
}

TEST(SafetensorsHeader, ChecksDtypeAndRankWhenATensorIsNeeded) {
  struct Unused {
    std::string dtype, shape;
    size_t bytes;
    std::string label, error;
  };
  const std::vector<Unused> cases = {
      {"F8_E4M3", "[4]", 4, "f8_e4m3", "unsupported dtype: got F8_E4M3"},
      {"F64", "[1]", 8, "f64", "unsupported dtype: got F64"},
      {"BOOL", "[3]", 3, "bool", "unsupported dtype: got BOOL"},
      {"I8", "[2,2]", 4, "i8", "unsupported dtype: got I8"},
      {"U16", "[2]", 4, "u16", "unsupported dtype: got U16"},
      {"F4", "[3]", 2, "f4", "unsupported dtype: got F4"},
      {"F6_E2M3", "[4]", 3, "f6_e2m3", "unsupported dtype: got F6_E2M3"},
      {"Q99", "[7]", 5, "q99", "unsupported dtype: got Q99"},  // of a later version of the format
      {"F32", "[1,1,1,1,1]", 4, "f32", "got 5 dimensions, wanted at most 4"},
  };
  for (const Unused& c : cases) {
    const auto header = parse(one(
        "\"dtype\":\"" + c.dtype + "\",\"shape\":" + c.shape + ",\"data_offsets\":[0," + std::to_string(c.bytes) + "]",
        c.bytes));
    ASSERT_EQ(header.tensors.size(), 1U);
    EXPECT_EQ(dtype_label(header.tensors[0]), c.label);
    expect_input_error([&] { tensor_type(header.tensors[0], kWhere); }, {"m.safetensors: tensor \"t\"", c.error});
  }
}

TEST(SafetensorsHeader, RefusesEveryTruncationOfAValidFile) {
  const std::string good = one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 8);
  ASSERT_NO_THROW(parse(good));
  for (size_t length = 0; length < good.size(); ++length) EXPECT_THROW(parse(good.substr(0, length)), Error) << length;
}

TEST(SafetensorsFile, ReadsFilesOfTheReferenceLibrary) {
  const auto file = SafetensorsFile::open(EPSMOE_SOURCE_DIR "/tests/data/io/mixed.safetensors");
  ASSERT_EQ(file.tensors().size(), 8U);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  std::vector<OwnedTensor> kept;
  const auto view = [&](const char* name) {
    const TensorInfo* info = file.find(name);
    EPS_CHECK(info != nullptr, "{}", name);
    return kept.emplace_back(file.read(*info)).view;
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

std::string one_tensor(float value, int64_t count) {
  std::string data;
  for (int64_t i = 0; i < count; ++i) data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  return aligned_safetensors_bytes(R"({"t":{"dtype":"F32","shape":[)" + std::to_string(count) +
                                       R"(],"data_offsets":[0,)" + std::to_string(data.size()) + "]}}",
                                   data);
}

TEST(SafetensorsFile, AFileThatChangesIsAnErrorAndOneThatIsReplacedIsNot) {
  constexpr int64_t kCount = 10'000;  // several pages
  const test::TempDir dir;
  const auto expect_changed = [](const SafetensorsFile& file, const std::string& fragment) {
    try {
      file.read(*file.find("t"));
      ADD_FAILURE() << "no error, wanted " << fragment;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kResource) << e.what();
      EXPECT_NE(std::string(e.what()).find(fragment), std::string::npos) << e.what();
    }
  };
  const auto values = [](const SafetensorsFile& file) {
    const OwnedTensor tensor = file.read(*file.find("t"));
    const float* p = tensor.view.as<const float>();
    return std::vector<float>(p, p + tensor.view.numel());
  };
  const std::string path = dir.write("m.safetensors", one_tensor(2.0F, kCount));
  {
    auto opened = SafetensorsFile::open(path);
    const SafetensorsFile file = std::move(opened);
    EXPECT_EQ(values(file), std::vector<float>(kCount, 2.0F));
    // Replacing or deleting the file does not change the opened one.
    dir.write("other", one_tensor(3.0F, kCount));
    std::filesystem::rename(dir.file("other"), path);
    EXPECT_EQ(values(file), std::vector<float>(kCount, 2.0F));
    std::filesystem::remove(path);
    EXPECT_EQ(values(file), std::vector<float>(kCount, 2.0F));
  }
  dir.write("m.safetensors", one_tensor(2.0F, kCount));
  {
    const SafetensorsFile file = SafetensorsFile::open(path);
    const OwnedTensor before = file.read(*file.find("t"));
    std::filesystem::resize_file(path, 4096);
    expect_changed(file, "was cut short");
    EXPECT_EQ(before.view.as<const float>()[kCount - 1], 2.0F) << "what was read is the reader's own";
  }
  dir.write("m.safetensors", one_tensor(2.0F, kCount));
  {
    const SafetensorsFile file = SafetensorsFile::open(path);
    std::filesystem::resize_file(path, std::filesystem::file_size(path) + 8);
    expect_changed(file, "changed its size");
  }
  dir.write("m.safetensors", one_tensor(2.0F, kCount));
  {
    const SafetensorsFile file = SafetensorsFile::open(path);
    dir.write("m.safetensors", one_tensor(4.0F, kCount));
    // A modification time that is certain to differ, whatever the file system's clock.
    std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(2));
    expect_changed(file, "was changed while");
  }
}

TEST(InputFile, OpensRegularFilesOnly) {
  const test::TempDir dir;
  const InputFile empty(dir.write("empty", ""));
  EXPECT_EQ(empty.size(), 0U);
  empty.read_at(0, {});
  const InputFile one_byte(dir.write("one", "x"));
  std::byte byte{};
  one_byte.read_at(0, {&byte, 1});
  EXPECT_EQ(byte, std::byte{'x'});
  EXPECT_THROW(one_byte.read_at(1, {&byte, 1}), Error);
  expect_input_error([&] { InputFile(dir.file("none")); }, {"none", "No such file"});
  expect_input_error([&] { InputFile(dir.path()); }, {"a directory"});
  expect_input_error([&] { InputFile("/dev/null"); }, {"wanted a regular file"});
}

TEST(FileExists, DistinguishesADanglingLinkFromNoFile) {
  const test::TempDir dir;
  EXPECT_FALSE(file_exists(dir.file("none")));
  EXPECT_FALSE(file_exists(dir.file("none/below")));
  EXPECT_FALSE(file_exists(dir.write("file", "") + "/below"));
  EXPECT_TRUE(file_exists(dir.file("file")));
  EXPECT_TRUE(file_exists(dir.path()));
  std::filesystem::create_symlink(dir.file("file"), dir.file("link"));
  EXPECT_TRUE(file_exists(dir.file("link")));
  std::filesystem::create_symlink(dir.file("none"), dir.file("dangling"));
  expect_input_error([&] { file_exists(dir.file("dangling")); },
                     {"dangling", "the link points to a file that does not"});
  std::filesystem::create_symlink(dir.file("circle"), dir.file("circle"));
  expect_input_error([&] { file_exists(dir.file("circle")); }, {"circle", "cannot determine"});
}

}  // namespace
}  // namespace eps::io
