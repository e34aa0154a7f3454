#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>

#include <filesystem>

#include "io/safetensors_files.h"

namespace eps::io {
namespace {

using test::aligned_safetensors_bytes;
using test::expect_input_error;
using test::TempDir;

// A file of f32 tensors of shape [1, 2], all of whose values are `value`.
std::string weights(const std::vector<std::string>& names, float value = 1.0F) {
  std::string header;
  std::string data;
  for (const std::string& name : names) {
    const std::string begin = std::to_string(data.size());
    for (int i = 0; i < 2; ++i) data.append(reinterpret_cast<const char*>(&value), sizeof(value));
    header += (header.empty() ? "{\"" : ",\"") + name + R"(":{"dtype":"F32","shape":[1,2],"data_offsets":[)" + begin +
              "," + std::to_string(data.size()) + "]}";
  }
  return aligned_safetensors_bytes(header + "}", data);
}

void write_index(const TempDir& dir, const std::string& weight_map) {
  dir.write("model.safetensors.index.json", R"({"metadata": {"total_size": 32}, "weight_map": )" + weight_map + "}");
}

TEST(Checkpoint, OpensASingleFile) {
  const TempDir dir;
  dir.write("config.json", R"({"model_type": "mixtral"})");
  dir.write("model.safetensors", weights({"b.weight", "a.weight"}, 3.0F));
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint.dir(), dir.path());
  EXPECT_EQ(checkpoint.config()["model_type"], "mixtral");
  EXPECT_TRUE(checkpoint.has("a.weight"));
  EXPECT_FALSE(checkpoint.has("a"));
  EXPECT_EQ(checkpoint.read("a.weight").view.as<const float>()[1], 3.0F);
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a.weight", "b.weight"}));
  EXPECT_EQ(checkpoint.num_parameters(), 4U);
  EXPECT_EQ(checkpoint.total_bytes(), 16U);
  ASSERT_EQ(checkpoint.dtype_totals().size(), 1U);
  EXPECT_EQ(checkpoint.dtype_totals().at("f32").num_tensors, 2U);
}

TEST(Checkpoint, OpensShards) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("model-00001-of-00002.safetensors", weights({"a", "unlisted"}, 1.0F));
  dir.write("model-00002-of-00002.safetensors", weights({"b"}, 2.0F));
  write_index(dir, R"({"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})");
  Checkpoint opened = Checkpoint::open(dir.path());
  const Checkpoint checkpoint = std::move(opened);
  EXPECT_EQ(checkpoint.read("a").view.as<const float>()[0], 1.0F);
  EXPECT_EQ(checkpoint.read("b").view.as<const float>()[0], 2.0F);
  EXPECT_TRUE(checkpoint.has("unlisted"));
  ASSERT_EQ(checkpoint.notes().size(), 1U);
  EXPECT_EQ(checkpoint.notes()[0],
            "model-00001-of-00002.safetensors: 1 tensor read that the index does not list, as transformers does");
  EXPECT_EQ(checkpoint.total_bytes(), 24U);
}

// Some tools write changed tensors to a separate shard and leave the old ones in place.
TEST(Checkpoint, UsesTheCopyThatTheIndexNames) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("base.safetensors", weights({"a", "b", "c", "twice"}, 1.0F));
  dir.write("a-overlay.safetensors", weights({"a", "twice"}, 2.0F));
  dir.write("z-overlay.safetensors", weights({"b"}, 3.0F));
  for (const bool overlaid : {true, false}) {
    SCOPED_TRACE(overlaid);
    write_index(dir, overlaid
                         ? R"({"a": "a-overlay.safetensors", "b": "z-overlay.safetensors", "c": "base.safetensors"})"
                         : R"({"a": "base.safetensors", "b": "base.safetensors", "twice": "a-overlay.safetensors"})");
    const Checkpoint checkpoint = Checkpoint::open(dir.path());
    EXPECT_EQ(checkpoint.read("a").view.as<const float>()[0], overlaid ? 2.0F : 1.0F);
    EXPECT_EQ(checkpoint.read("b").view.as<const float>()[0], overlaid ? 3.0F : 1.0F);
    const auto is_skipped = [](const std::string& note) { return note.find("skipped") != note.npos; };
    EXPECT_EQ(std::ranges::count_if(checkpoint.notes(), is_skipped), overlaid ? 1 : 2);
    EXPECT_EQ(checkpoint.notes().back(),
              "base.safetensors: 1 tensor read that the index does not list, as transformers does");
    if (overlaid) continue;
    EXPECT_EQ(checkpoint.read("twice").view.as<const float>()[0], 2.0F);
  }
}

TEST(Checkpoint, CopiesThatTheIndexDoesNotListAreRefusedWhenNeeded) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("one.safetensors", weights({"a", "shared"}));
  dir.write("two.safetensors", weights({"b", "shared"}));
  write_index(dir, R"({"a": "one.safetensors", "b": "two.safetensors"})");
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint.read("b").view.numel(), 2);
  expect_input_error([&] { checkpoint.read("shared"); },
                     {"two.safetensors: tensor \"shared\" is also in", "one.safetensors", "the index lists neither"});
}

TEST(Checkpoint, ADanglingLinkIsNotAnAbsentFile) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("other.safetensors", weights({"a"}));
  write_index(dir, R"({"a": "other.safetensors"})");
  std::filesystem::create_symlink(dir.file("gone"), dir.file("model.safetensors"));
  expect_input_error([&] { Checkpoint::open(dir.path()); }, {"model.safetensors", "the link points to"});
}

TEST(Checkpoint, PrefersTheSingleFile) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("model.safetensors", weights({"single"}));
  write_index(dir, R"({"a": "missing.safetensors"})");
  EXPECT_TRUE(Checkpoint::open(dir.path()).has("single"));
}

TEST(Checkpoint, FollowsLinksToOtherFolders) {
  const TempDir store;
  const TempDir dir;
  dir.write("config.json", "{}");
  std::filesystem::create_symlink(store.write("blob", weights({"a"})), dir.file("model.safetensors"));
  EXPECT_TRUE(Checkpoint::open(dir.path()).has("a"));
}

TEST(Checkpoint, ExplainsMissingAndMisshapenTensors) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("model.safetensors", weights({"model.layers.0.mlp.gate.weight", "model.norm.weight"}));
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  expect_input_error([&] { checkpoint.read("model.layers.0.mlp.gates.weight"); },
                     {dir.path(), "missing tensor \"model.layers.0.mlp.gates.weight\"",
                      "did you mean \"model.layers.0.mlp.gate.weight\"?"});
  expect_input_error([&] { checkpoint.read("norm.weight"); }, {"did you mean \"model.norm.weight\"?"});
  expect_input_error([&] { checkpoint.info("x"); }, {"missing tensor \"x\""});
  expect_input_error(
      [&] {
        checkpoint.type("model.norm.weight", {2, 1});
      },
      {"model.safetensors: tensor \"model.norm.weight\"", "got [1, 2], wanted [2, 1]"});
  EXPECT_EQ(nearest_name("lm_head.weight", checkpoint.names()), "");
  EXPECT_EQ(nearest_name("anything", {}), "");
  EXPECT_EQ(nearest_name(std::string(100'000, 'a'), {std::string(100'000, 'b')}), "");
}

TEST(Checkpoint, ExplainsABrokenFolder) {
  const TempDir dir;
  expect_input_error([&] { Checkpoint::open(dir.file("none")); },
                     {"none", "No such file or directory", "try a folder"});
  expect_input_error([&] { Checkpoint::open(dir.write("file", "")); }, {"got a file, wanted a folder"});
  expect_input_error([&] { Checkpoint::open(dir.path()); }, {"no config.json", "try a folder"});
  std::filesystem::create_directory(dir.file("config.json"));
  expect_input_error([&] { Checkpoint::open(dir.path()); }, {"config.json", "got a directory"});
  std::filesystem::remove(dir.file("config.json"));
  dir.write("config.json", "[]");
  expect_input_error([&] { Checkpoint::open(dir.path()); }, {"config.json", "got a list of 0, wanted an object"});
  dir.write("config.json", "{\"a\": 1,}");
  expect_input_error([&] { Checkpoint::open(dir.path()); }, {"config.json", "not valid JSON"});
  dir.write("config.json", "{}");
  expect_input_error([&] { Checkpoint::open(dir.path()); }, {"no weights", "downloading"});
  dir.write("pytorch_model.bin", "");
  expect_input_error([&] { Checkpoint::open(dir.path()); }, {"got pytorch_model.bin", "converting"});
  dir.write("model.safetensors", "");
  expect_input_error([&] { Checkpoint::open(dir.path()); }, {"model.safetensors", "too short"});
}

TEST(Checkpoint, ExplainsDeniedPermission) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TempDir dir;
  ASSERT_EQ(::chmod(dir.write("config.json", "{}").c_str(), 0), 0);
  expect_input_error([&] { Checkpoint::open(dir.path()); }, {"config.json", "Permission denied", "ls -l"});
}

struct BadIndex {
  std::string index;
  std::vector<std::string> fragments;
};

TEST(Checkpoint, RefusesABadIndex) {
  const TempDir dir;
  dir.write("config.json", "{}");
  dir.write("one.safetensors", weights({"a", "shared"}));
  dir.write("two.safetensors", weights({"b", "shared"}));
  dir.write("three.safetensors", weights({"c"}));
  const std::string folder_hint = "the name of a file in the same folder";
  const std::vector<BadIndex> cases = {
      {"[]", {"got a list of 0"}},
      {"{}", {"missing key \"weight_map\""}},
      {R"({"weight_map": []})", {"key \"weight_map\": got a list"}},
      {R"({"weight_map": {}})", {"empty weight_map"}},
      {R"({"weight_map": {"a": 1}})", {"key \"weight_map.a\": got 1, wanted a string"}},
      {R"({"weight_map": {"a": null}})", {"weight_map.a", "wanted a string"}},
      {R"({"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}})", {"duplicate key \"a\""}},
      {R"({"weight_map": {"a": "../one.safetensors"}})", {"got \"../one.safetensors\"", folder_hint}},
      {R"({"weight_map": {"a": "/etc/one.safetensors"}})", {"got \"/etc/one.safetensors\"", folder_hint}},
      {R"({"weight_map": {"a": "sub/one.safetensors"}})", {folder_hint}},
      {R"({"weight_map": {"a": "..\\one.safetensors"}})", {folder_hint}},
      {R"({"weight_map": {"a": "one.safetensors\u0000.safetensors"}})", {folder_hint}},
      {R"({"weight_map": {"a": ".."}})", {"a name ending in .safetensors"}},
      {R"({"weight_map": {"a": ""}})", {"a name ending in .safetensors"}},
      {R"({"weight_map": {"a": "pytorch_model.bin"}})", {"converting the checkpoint to safetensors"}},
      {R"({"weight_map": {"a": "one.safetensors", "z": "gone.safetensors"}})",
       {"1 of 2 shards missing", "first \"gone.safetensors\""}},
      {R"({"weight_map": {"a": "three.safetensors"}})",
       {"three.safetensors: tensor \"a\" is not in this shard", "downloading", "transformers would fill"}},
      {R"({"weight_map": {"a": "three.safetensors", "c": "one.safetensors"}})", {"is not in this shard"}},
  };
  for (const BadIndex& bad : cases) {
    SCOPED_TRACE(bad.index);
    dir.write("model.safetensors.index.json", bad.index);
    expect_input_error([&] { Checkpoint::open(dir.path()); }, bad.fragments);
  }
}

}  // namespace
}  // namespace eps::io
