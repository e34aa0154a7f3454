// Random numbers: the published generator, and what is made of it.
#include "base/random.h"

#include <gtest/gtest.h>

namespace eps {
namespace {

TEST(SplitMix64, GivesThePublishedNumbers) {
  SplitMix64 random(1234567);  // the reference implementation's output for this seed
  EXPECT_EQ(random.bits(), 6457827717110365317U);
  EXPECT_EQ(random.bits(), 3203168211198807973U);
  EXPECT_EQ(random.bits(), 9817491932198370423U);
}

TEST(SplitMix64, StartsAnywhere) {
  SplitMix64 random(7);
  SplitMix64 later = random.after(3);
  for (int i = 0; i < 3; ++i) random.bits();
  EXPECT_EQ(random.bits(), later.bits());
}

TEST(SplitMix64, DistributionsHaveTheirMoments) {
  SplitMix64 random(1);
  constexpr int kCount = 100000;
  double uniform = 0;
  double normal = 0;
  double square = 0;
  for (int i = 0; i < kCount; ++i) {
    const double u = random.uniform();
    ASSERT_TRUE(u >= 0 && u < 1) << u;
    uniform += u / kCount;
    const double v = random.normal();
    normal += v / kCount;
    square += v * v / kCount;
  }
  EXPECT_NEAR(uniform, 0.5, 0.005);
  EXPECT_NEAR(normal, 0, 0.02);
  EXPECT_NEAR(square, 1, 0.02);
}

}  // namespace
}  // namespace eps
