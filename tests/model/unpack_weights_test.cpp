#include "model/unpack_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace eps::model {
namespace {

std::vector<float> values_of(const Buffer& buffer, int64_t count) {
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(to_float(reinterpret_cast<const bf16*>(buffer.data())[i]));
  return out;
}

// Some numbers of the table in the format's paper (arXiv 2209.05433).
TEST(UnpackWeights, E4m3HasSubnormalsAndNoInfinity) {
  EXPECT_EQ(e4m3_to_float(0x00), 0.0F);
  EXPECT_EQ(e4m3_to_float(0x01), 0x1p-9F);
  EXPECT_EQ(e4m3_to_float(0x07), 7 * 0x1p-9F);
  EXPECT_EQ(e4m3_to_float(0x08), 0x1p-6F);
  EXPECT_EQ(e4m3_to_float(0x38), 1.0F);
  EXPECT_EQ(e4m3_to_float(0x3a), 1.25F);
  EXPECT_EQ(e4m3_to_float(0xb8), -1.0F);
  EXPECT_EQ(e4m3_to_float(0x7e), 448.0F);
  EXPECT_EQ(e4m3_to_float(0xfe), -448.0F);
  EXPECT_TRUE(std::isnan(e4m3_to_float(0x7f)));
  EXPECT_TRUE(std::isnan(e4m3_to_float(0xff)));
  EXPECT_TRUE(std::signbit(e4m3_to_float(0x80)));
}

TEST(UnpackWeights, Fp8BlocksHaveTheirOwnScales) {
  // [3, 5] in blocks of [2, 3]; all values are 1, so that the result shows the scales.
  const std::vector<uint8_t> ones(15, 0x38);
  const std::vector<float> scales = {2.0F, 3.0F, 4.0F, 5.0F};
  Buffer out;
  unpack_fp8_blocks(ones.data(), scales.data(), {2, 3}, out.view(DType::kBF16, {3, 5}));
  EXPECT_EQ(values_of(out, 15), (std::vector<float>{2, 2, 2, 3, 3, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5}));
  // Rounded once, after the product: 1.125 · (1 + 2^-8) = 1.12939…, between 1.125 and 1.1328125.
  const uint8_t value = 0x39;
  const float scale = 1.0F + 0x1p-8F;
  unpack_fp8_blocks(&value, &scale, {1, 1}, out.view(DType::kBF16, {1, 1}));
  EXPECT_EQ(values_of(out, 1).front(), 1.1328125F);
}

TEST(UnpackWeights, Mxfp4HasTwoValuesInAByteAndAnExponentForThirtyTwo) {
  // Two rows of 64 values; the second row is left out by the step.
  std::vector<uint8_t> blocks(3 * 32, 0);
  blocks[0] = 0x71;   // 0.5, 6
  blocks[1] = 0xfa;   // -1, -6
  blocks[16] = 0x24;  // 2, 1: the first byte of the second block
  blocks[64] = 0x03;  // 1.5 in the third stored row
  const std::vector<uint8_t> scales = {127, 128, 0, 0, 126, 127};
  Buffer out;
  unpack_mxfp4(blocks.data(), scales.data(), 2, out.view(DType::kBF16, {2, 64}));
  const std::vector<float> got = values_of(out, 128);
  EXPECT_EQ((std::vector<float>{got[0], got[1], got[2], got[3]}), (std::vector<float>{0.5F, 6.0F, -1.0F, -6.0F}));
  EXPECT_EQ(got[32], 4.0F);
  EXPECT_EQ(got[33], 2.0F);
  EXPECT_EQ(got[64], 0.75F);
}

}  // namespace
}  // namespace eps::model
