#include "plan/profile.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace eps {

double curve_at(const Curve& curve, double x, bool extend) {
  if (curve.empty()) return 0;
  const auto above = std::upper_bound(curve.begin(), curve.end(), x,
                                      [](double value, const CurvePoint& point) { return value < point.x; });
  if (above == curve.begin()) return curve.front().y;
  if (above == curve.end() && (!extend || curve.size() == 1)) return curve.back().y;
  const CurvePoint& b = above == curve.end() ? curve.back() : *above;
  const CurvePoint& a = above == curve.end() ? curve[curve.size() - 2] : *(above - 1);
  return a.y + (x - a.x) * (b.y - a.y) / (b.x - a.x);
}

const GemmProfile& find_gemm(const HardwareProfile& profile, GemmKind kind, DType weight_dtype) {
  std::string known;
  for (const GemmProfile& gemm : profile.gemms) {
    if (gemm.kind == kind && gemm.weight_dtype == weight_dtype) return gemm;
    known += fmt::format("{}{} {}", known.empty() ? "" : ", ", to_string(gemm.weight_dtype), to_string(gemm.kind));
  }
  fail(ErrorKind::kUsage, "--profile",
       {.what = fmt::format("profile {} has no {} GEMM of that weight type", profile.name, to_string(kind)),
        .got = std::string(to_string(weight_dtype)),
        .wanted = "one of " + known,
        .hint = "epsmoe tune"});
}

}  // namespace eps
