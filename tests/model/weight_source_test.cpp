#include "model/weight_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "arch/family.h"

namespace eps::model {
namespace {

// One value by the published formula: splitmix64 seeded with the name, one random number for every two values, each of
// which is the sum of four of its bytes.
float formula(const std::string& name, int64_t index) {
  uint64_t state = 0xcbf29ce484222325ULL;
  for (const char c : name) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  uint64_t z = 0;
  for (int64_t number = 0; number <= index / 2; ++number) {
    state += 0x9e3779b97f4a7c15ULL;
    z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    z = z ^ (z >> 31);
  }
  int sum = 0;
  for (int byte = 0; byte < 4; ++byte) sum += static_cast<int>((z >> (32 * (index % 2) + 8 * byte)) & 0xff);
  const double scale = 0.02 / std::sqrt(4 * (256.0 * 256.0 - 1.0) / 12.0);
  return to_float(to_bf16(static_cast<float>((sum - 510) * scale)));
}

TEST(DummySource, ValuesAreTheFormulasForEveryNumberOfThreads) {
  // An odd number of values with an incomplete last block, and fewer values than one block.
  for (const Shape& shape : {Shape{1001, 409}, Shape{3, 5}, Shape{1, 1}, Shape{1, 65536}, Shape{1, 65537}}) {
    const int64_t count = shape.numel();
    const auto one = make_dummy_source(1);
    const TensorView want = one->get("w", shape);
    for (const int threads : {2, 5, 0}) {
      const auto source = make_dummy_source(threads);
      const TensorView got = source->get("w", shape);
      EXPECT_EQ(std::memcmp(got.data(), want.data(), got.num_bytes()), 0) << shape.to_string() << ", " << threads;
    }
    for (const int64_t i : {int64_t{0}, int64_t{1}, int64_t{65535}, int64_t{65536}, count - 2, count - 1}) {
      if (i < 0 || i >= count) continue;
      EXPECT_EQ(to_float(want.as<const bf16>()[i]), formula("w", i)) << shape.to_string() << " at " << i;
    }
  }
}

TEST(DummySource, ReusesOnlyReleasedMemory) {
  const auto source = make_dummy_source(2);
  const Shape shape{300, 500};
  const auto value = [](TensorView v, int64_t i) { return to_float(v.as<const bf16>()[i]); };
  const TensorView a = source->get("a", shape);
  const TensorView b = source->get("b", shape);
  EXPECT_NE(a.data(), b.data());
  source->release("a");
  source->release("a");  // a second time, without effect
  const TensorView c = source->get("c", shape);
  EXPECT_EQ(c.data(), a.data()) << "reuses the released memory of the same size";
  EXPECT_EQ(value(b, 7), formula("b", 7));
  EXPECT_EQ(value(c, 7), formula("c", 7));
  source->release("c");
  const TensorView small = source->get("small", {4, 4});
  EXPECT_NE(small.data(), c.data()) << "a small weight must not occupy the memory of a large one";
  const TensorView norm = source->get("norm", {150000});
  for (int64_t i = 0; i < norm.numel(); ++i) ASSERT_EQ(value(norm, i), 1.0F);
}

// Slices of a matrix, read row by row or many rows at a time, are those of the whole.
TEST(CheckpointSource, ReadsSlicesOfEveryWidth) {
  const io::Checkpoint checkpoint = io::Checkpoint::open(std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe");
  const io::JsonObject config(checkpoint.config(), checkpoint.config_path());
  const arch::Family& family = arch::find_family(config);
  const arch::ModelSpec spec = family.read_config(config);
  const StoredNames names(spec, family, checkpoint);
  const auto source = make_checkpoint_source(checkpoint, names);
  const std::string name = family.global_names().embedding;
  const Shape stored{spec.vocab_size, spec.hidden};
  const TensorView whole = source->get(name, stored);
  const auto* want = whole.as<const bf16>();
  EXPECT_TRUE(source->reads_slices(arch::StoredTensor(name)));
  // As a matrix with rows of another width: those of 65536 elements have more between two slices than is read with
  // them, and there are more rows of 512 than are read at once.
  for (const int64_t width : {spec.hidden, int64_t{512}, int64_t{65536}}) {
    const int64_t rows = stored.numel() / width;
    for (const arch::Slice columns : {arch::Slice{0, 1}, {1, 100}, {width - 3, 3}, {0, width}}) {
      for (const arch::Slice part : {arch::Slice{0, rows}, {rows / 2, rows - rows / 2}, {rows - 1, 1}}) {
        arch::StoredTensor slice = arch::slice_of(arch::StoredTensor(name), {rows, width}, part, columns);
        slice.shape = stored;
        const TensorView got = source->get(slice, {part.count, columns.count});
        const auto* values = got.as<const bf16>();
        for (int64_t r = 0; r < part.count; ++r) {
          ASSERT_EQ(std::memcmp(values + r * columns.count, want + (part.begin + r) * width + columns.begin,
                                static_cast<size_t>(columns.count) * sizeof(bf16)),
                    0)
              << "row " << r << " of " << part.count << " of " << width << ", columns from " << columns.begin;
        }
        source->release(slice);
      }
    }
  }
}

}  // namespace
}  // namespace eps::model
