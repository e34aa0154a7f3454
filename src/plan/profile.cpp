#include "plan/profile.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "base/error.h"

namespace eps {
namespace {

constexpr std::array<std::string_view, 8> kOpNames = {"gather", "silu_mul", "reduce",   "finish",
                                                      "pack",   "norm",     "quantize", "other"};
// What every layer runs: one that a profile forgot would count as free.
constexpr std::array<std::string_view, 5> kLayerOps = {"gather", "silu_mul", "reduce", "finish", "pack"};

class Faults {
 public:
  void add(const std::string& key, const std::string& what) {
    lines_.push_back(fmt::format("key \"{}\": {}", key, what));
  }

  void positive(const std::string& key, double value) {
    if (!(std::isfinite(value) && value > 0)) add(key, fmt::format("got {}, wanted a number above 0", value));
  }
  void not_negative(const std::string& key, double value) {
    if (!(std::isfinite(value) && value >= 0)) add(key, fmt::format("got {}, wanted 0 or more", value));
  }

  // `least_y`: of every point.
  void curve(const std::string& key, const Curve& curve, double least_y, bool rising) {
    for (size_t i = 0; i < curve.size(); ++i) {
      const auto [x, y] = curve[i];
      const std::string at = fmt::format("{}[{}]", key, i);
      if (!(std::isfinite(x) && x >= 1)) add(at, fmt::format("got x = {}, wanted 1 or more", x));
      if (!(std::isfinite(y) && y > 0 && y >= least_y)) {
        add(at, fmt::format("got y = {}, wanted {}", y, least_y > 0 ? fmt::format("{} or more", least_y) : "above 0"));
      }
      if (i == 0) continue;
      if (!(x > curve[i - 1].x)) add(at, fmt::format("got x = {}, wanted more than {} before it", x, curve[i - 1].x));
      if (rising && y < curve[i - 1].y) {
        add(at, fmt::format("got y = {}, wanted no less than {} before it", y, curve[i - 1].y));
      }
    }
  }

  std::vector<std::string> take() { return std::move(lines_); }

 private:
  std::vector<std::string> lines_;
};

std::string name_of(GemmKind kind, DType dtype) { return fmt::format("{} {}", to_string(kind), to_string(dtype)); }

void check_gemm(Faults& faults, const std::string& key, const GemmProfile& gemm, int num_sms) {
  faults.not_negative(key + ".call_us", gemm.call_us);
  if (gemm.shapes.empty()) faults.add(key + ".shapes", "got none, wanted one or more");
  std::set<std::pair<int64_t, int64_t>> seen;
  for (size_t i = 0; i < gemm.shapes.size(); ++i) {
    const GemmShapeCurve& shape = gemm.shapes[i];
    const std::string at = fmt::format("{}.shapes[{}]", key, i);
    if (shape.n < 1 || shape.k < 1) {
      faults.add(at, fmt::format("got n = {}, k = {}, wanted 1 or more", shape.n, shape.k));
    }
    if (!seen.insert({shape.n, shape.k}).second) {
      faults.add(at, fmt::format("got n = {}, k = {} a second time", shape.n, shape.k));
    }
    if (shape.us_of_rows.empty()) faults.add(at + ".us_of_rows", "got no point, wanted one or more");
    faults.curve(at + ".us_of_rows", shape.us_of_rows, 0, true);
  }
  faults.curve(key + ".group_factor", gemm.group_factor, 0, false);
  faults.curve(key + ".sm_factor", gemm.sm_factor, 1, false);
  if (!gemm.sm_factor.empty() && gemm.sm_factor.back().x > num_sms) {
    faults.add(key + ".sm_factor", fmt::format("got {} SMs of {}", gemm.sm_factor.back().x, num_sms));
  }
}

void check_gemms(Faults& faults, const HardwareProfile& profile) {
  std::set<std::pair<GemmKind, DType>> have;
  for (size_t i = 0; i < profile.gemms.size(); ++i) {
    const GemmProfile& gemm = profile.gemms[i];
    const std::string key = fmt::format("gemms[{}]", i);
    if (!have.insert({gemm.kind, gemm.weight_dtype}).second) {
      faults.add(key, fmt::format("got {} a second time", name_of(gemm.kind, gemm.weight_dtype)));
    }
    check_gemm(faults, key, gemm, profile.num_sms);
  }
  if (have.empty()) faults.add("gemms", "got none, wanted a dense and a grouped one");
  for (const auto& [kind, dtype] : have) {
    const GemmKind other = kind == GemmKind::kDense ? GemmKind::kGrouped : GemmKind::kDense;
    if (!have.contains({other, dtype})) {
      faults.add("gemms", fmt::format("got {} without {}", name_of(kind, dtype), name_of(other, dtype)));
    }
  }
}

void check_links(Faults& faults, const std::string& key, const std::vector<LinkPoint>& links, int num_sms) {
  for (size_t i = 0; i < links.size(); ++i) {
    const LinkPoint& link = links[i];
    const std::string at = fmt::format("{}[{}]", key, i);
    if (link.sms < 0 || link.sms > num_sms) {
      faults.add(at + ".sms", fmt::format("got {}, wanted 0 to {}", link.sms, num_sms));
    }
    if (i > 0 && link.sms <= links[i - 1].sms) {
      faults.add(at + ".sms", fmt::format("got {}, wanted more than {} before it", link.sms, links[i - 1].sms));
    }
    faults.positive(at + ".gbps", link.gbps);
    faults.not_negative(at + ".alpha_us", link.alpha_us);
  }
}

void check_ops(Faults& faults, const std::map<std::string, OpCost>& ops) {
  for (const auto& [name, cost] : ops) {
    const std::string key = "ops." + name;
    if (std::ranges::find(kOpNames, name) == kOpNames.end()) {
      faults.add(key, fmt::format("no such op, wanted one of {}", fmt::join(kOpNames, ", ")));
    }
    faults.not_negative(key + ".fixed_us", cost.fixed_us);
    faults.positive(key + ".gbps", cost.gbps);
  }
  for (const std::string_view name : kLayerOps) {
    if (!ops.contains(std::string(name))) faults.add(fmt::format("ops.{}", name), "got nothing, wanted its cost");
  }
}

}  // namespace

double curve_at(const Curve& curve, double x, bool extend) {
  EPS_CHECK(!curve.empty(), "a curve without points");
  if (x <= curve.front().x || curve.size() == 1) return curve.front().y;
  if (x >= curve.back().x && !extend) return curve.back().y;
  // The first point beyond x; above the last one, the last segment goes on.
  auto right = std::ranges::upper_bound(curve, x, {}, &CurvePoint::x);
  if (right == curve.end()) --right;
  const CurvePoint& a = *(right - 1);
  const CurvePoint& b = *right;
  return a.y + (x - a.x) / (b.x - a.x) * (b.y - a.y);
}

std::vector<std::string> find_profile_faults(const HardwareProfile& profile) {
  Faults faults;
  if (profile.name.empty()) faults.add("name", "is empty");
  if (profile.num_sms < 0) faults.add("num_sms", fmt::format("got {}, wanted 0 or more", profile.num_sms));
  if (profile.ranks_per_node < 1) {
    faults.add("ranks_per_node", fmt::format("got {}, wanted 1 or more", profile.ranks_per_node));
  }
  faults.positive("memory_gb", profile.memory_gb);
  faults.positive("memory_gbps", profile.memory_gbps);
  check_gemms(faults, profile);
  check_links(faults, "links", profile.links, profile.num_sms);
  check_links(faults, "inter_links", profile.inter_links, profile.num_sms);
  faults.not_negative("contention.compute", profile.contention.compute);
  faults.not_negative("contention.comm", profile.contention.comm);
  faults.not_negative("contention.uncapped_compute", profile.contention.uncapped_compute);
  faults.not_negative("contention.uncapped_comm", profile.contention.uncapped_comm);
  faults.not_negative("handoff_us", profile.handoff_us);
  check_ops(faults, profile.ops);
  faults.positive("attention_tflops", profile.attention_tflops);
  return faults.take();
}

const GemmProfile& find_gemm(const HardwareProfile& profile, GemmKind kind, DType weight_dtype) {
  std::vector<std::string> known;
  for (const GemmProfile& gemm : profile.gemms) {
    if (gemm.kind == kind && gemm.weight_dtype == weight_dtype) return gemm;
    known.push_back(name_of(gemm.kind, gemm.weight_dtype));
  }
  fail(ErrorKind::kUsage, "--profile",
       {.what = fmt::format("profile {} has no such GEMM times", profile.name),
        .got = name_of(kind, weight_dtype),
        .wanted = known.empty() ? "" : fmt::format("one of {}", fmt::join(known, ", ")),
        .hint = "epsmoe tune"});
}

}  // namespace eps
