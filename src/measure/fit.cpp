#include "measure/fit.h"

#include <algorithm>

#include "base/error.h"

namespace eps::measure {

// Weighted least squares, with the weight 1/µs for a point: between absolute errors (1) and relative ones (1/µs²).
plan::OpCost fit_cost(std::span<const plan::CurvePoint> points) {
  EPS_CHECK(!points.empty());
  double w = 0;
  double wx = 0;
  double wxx = 0;
  double wy = 0;
  double wxy = 0;
  for (const auto [x, y] : points) {
    EPS_CHECK(y > 0 && x > 0, "{} bytes in {} us", x, y);
    const double weight = 1 / y;
    w += weight;
    wx += weight * x;
    wxx += weight * x * x;
    wy += weight * y;
    wxy += weight * x * y;
  }
  const double determinant = w * wxx - wx * wx;
  double slope = determinant > 0 ? (w * wxy - wx * wy) / determinant : 0;
  double fixed = (wy - slope * wx) / w;
  if (slope <= 0 || fixed < 0) {  // the best line through zero instead
    slope = wxy / wxx;
    fixed = 0;
  }
  return {fixed, 1e-3 / slope};
}

plan::Curve curve_through(std::vector<plan::CurvePoint> points) {
  std::ranges::stable_sort(points, {}, &plan::CurvePoint::x);
  plan::Curve curve;
  for (size_t begin = 0, end = 0; begin < points.size(); begin = end) {
    double sum = 0;
    for (end = begin; end < points.size() && points[end].x == points[begin].x; ++end) sum += points[end].y;
    curve.push_back({points[begin].x, sum / static_cast<double>(end - begin)});
  }
  return without_falls(curve);
}

// Isotonic regression by the pool adjacent violators algorithm.
plan::Curve without_falls(const plan::Curve& curve) {
  struct Block {
    double sum;
    double count;
    double mean() const { return sum / count; }
  };
  std::vector<Block> blocks;
  for (const plan::CurvePoint& point : curve) {
    blocks.push_back({point.y, 1});
    while (blocks.size() > 1 && blocks[blocks.size() - 2].mean() > blocks.back().mean()) {
      const Block last = blocks.back();
      blocks.pop_back();
      blocks.back().sum += last.sum;
      blocks.back().count += last.count;
    }
  }
  plan::Curve out = curve;
  size_t i = 0;
  for (const Block& block : blocks) {
    for (int j = 0; j < static_cast<int>(block.count); ++j) out[i++].y = block.mean();
  }
  return out;
}

}  // namespace eps::measure
