// Fits of lines and curves to samples.
#include "measure/fit.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace eps::measure {
namespace {

TEST(FitCost, RecoversALine) {
  std::vector<plan::CurvePoint> points;
  for (const double bytes : {1e3, 1e4, 1e5, 1e6, 1e7}) points.push_back({bytes, 15 + bytes * 1e-3 / 12.5});
  const plan::OpCost cost = fit_cost(points);
  EXPECT_NEAR(cost.fixed_us, 15, 1e-6);
  EXPECT_NEAR(cost.gbps, 12.5, 1e-6);
}

TEST(FitCost, IsNeverNegative) {
  // Falling times, times whose line would have a negative constant, and a single point.
  for (const std::vector<plan::CurvePoint>& points : std::vector<std::vector<plan::CurvePoint>>{
           {{1e3, 10}, {1e4, 5}}, {{1e3, 0.1}, {1e4, 1}, {1e5, 100}}, {{1e3, 2}}, {{1e3, 2}, {1e3, 3}}}) {
    const plan::OpCost cost = fit_cost(points);
    EXPECT_GE(cost.fixed_us, 0);
    EXPECT_GT(cost.gbps, 0);
  }
  EXPECT_THROW(fit_cost({}), Error);
  const plan::CurvePoint nothing{1e3, 0};
  EXPECT_THROW(fit_cost(std::span(&nothing, 1)), Error);
}

TEST(CurveThrough, SortsAveragesAndDoesNotFall) {
  EXPECT_EQ(curve_through({}), plan::Curve{});
  EXPECT_EQ(curve_through({{8, 5}, {2, 1}, {4, 2}}), (plan::Curve{{2, 1}, {4, 2}, {8, 5}}));
  EXPECT_EQ(curve_through({{4, 2}, {2, 1}, {4, 4}}), (plan::Curve{{2, 1}, {4, 3}}));
  EXPECT_EQ(curve_through({{2, 1}, {8, 2}, {4, 4}}), (plan::Curve{{2, 1}, {4, 3}, {8, 3}}));
}

TEST(WithoutFalls, AveragesOnlyWhatFalls) {
  EXPECT_EQ(without_falls({}), plan::Curve{});
  const plan::Curve rising = {{1, 1}, {2, 1}, {4, 3}};
  EXPECT_EQ(without_falls(rising), rising);
  EXPECT_EQ(without_falls({{1, 1}, {2, 4}, {4, 2}, {8, 9}}), (plan::Curve{{1, 1}, {2, 3}, {4, 3}, {8, 9}}));
  EXPECT_EQ(without_falls({{1, 9}, {2, 6}, {4, 3}}), (plan::Curve{{1, 6}, {2, 6}, {4, 6}}));
}

}  // namespace
}  // namespace eps::measure
