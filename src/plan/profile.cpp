#include "plan/profile.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "base/error.h"

namespace eps::plan {
namespace {

constexpr std::array<std::string_view, 8> kOpNames = {"gather", "silu_mul", "reduce",   "finish",
                                                      "pack",   "norm",     "quantize", "other"};
// Ops that every layer runs. They are required, because an op without a cost would count as taking no time.
constexpr std::array<std::string_view, 5> kLayerOps = {"gather", "silu_mul", "reduce", "finish", "pack"};

// The allowed range of a number in a profile. The ranges exceed those of all existing devices by orders of magnitude
// but keep the results of planning finite: a layer of 2^31 rows at the slowest rates takes 1e30 µs, and rounding never
// makes a whole op disappear from a sum of times.
struct Range {
  double least;
  double most;
};
constexpr Range kTimes = {0, 1e9};             // µs: up to a quarter of an hour
constexpr Range kPositiveTimes = {1e-9, 1e9};  // µs for one or more rows
constexpr Range kRates = {1e-6, 1e12};         // GB/s and TFLOP/s
constexpr Range kFactors = {1e-3, 1e3};        // time factors of grouped GEMMs by groups
constexpr Range kSmFactors = {1, 1e4};         // time factors of GEMMs on fewer SMs
constexpr Range kSlowdowns = {0, 1e3};         // 1000: takes a thousand times as long
constexpr Range kXs = {1, 2147483648.0};       // rows, groups, SMs
constexpr Range kBytes = {1, 1e15};
constexpr int64_t kMaxMatrixSide = int64_t{1} << 31;
constexpr int kMaxSms = 1 << 16;
constexpr int kMaxRanksPerNode = 1 << 20;
// Limits for the lengths of lists, because planning tries every link and searches curves. A measured profile has about
// ten entries in each list.
constexpr size_t kMaxPoints = 4096;
constexpr size_t kMaxShapes = 1024;
constexpr size_t kMaxLinks = 64;

class Faults {
 public:
  void add(const std::string& key, const std::string& what) {
    lines_.push_back(fmt::format("key \"{}\": {}", key, what));
  }

  // Written such that NaN is outside every range.
  void number(const std::string& key, double value, const Range& range, const char* name = "") {
    if (value >= range.least && value <= range.most) return;
    add(key, fmt::format("got {}{}, wanted {:.10g} to {:.10g}", name, value, range.least, range.most));
  }
  // Returns false if there are too many entries to check individually.
  bool count(const std::string& key, size_t count, size_t most) {
    if (count <= most) return true;
    add(key, fmt::format("got {}, wanted {} at most", count, most));
    return false;
  }

  // `values`: the range of every point's y; `xs`: that of its x.
  void curve(const std::string& key, const Curve& curve, const Range& values, bool rising, const Range& xs = kXs) {
    if (!count(key, curve.size(), kMaxPoints)) return;
    for (size_t i = 0; i < curve.size(); ++i) {
      const auto [x, y] = curve[i];
      const std::string at = fmt::format("{}[{}]", key, i);
      number(at, x, xs, "x = ");
      number(at, y, values, "y = ");
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

std::string name_of(moe::GemmKind kind, DType dtype) {
  return fmt::format("{} {}", moe::to_string(kind), to_string(dtype));
}

void check_gemm(Faults& faults, const std::string& key, const GemmProfile& gemm, int num_sms) {
  faults.number(key + ".call_us", gemm.call_us, kTimes);
  if (!faults.count(key + ".shapes", gemm.shapes.size(), kMaxShapes)) return;
  if (gemm.shapes.empty()) faults.add(key + ".shapes", "got none, wanted at least one");
  std::set<std::pair<int64_t, int64_t>> seen;
  for (size_t i = 0; i < gemm.shapes.size(); ++i) {
    const GemmShapeCurve& shape = gemm.shapes[i];
    const std::string at = fmt::format("{}.shapes[{}]", key, i);
    if (std::min(shape.n, shape.k) < 1 || std::max(shape.n, shape.k) > kMaxMatrixSide) {
      faults.add(at, fmt::format("got n = {}, k = {}, wanted 1 to {}", shape.n, shape.k, kMaxMatrixSide));
    }
    if (!seen.insert({shape.n, shape.k}).second) {
      faults.add(at, fmt::format("got n = {}, k = {} a second time", shape.n, shape.k));
    }
    if (shape.us_of_rows.empty()) faults.add(at + ".us_of_rows", "got no point, wanted at least one");
    faults.curve(at + ".us_of_rows", shape.us_of_rows, kPositiveTimes, true);
  }
  faults.curve(key + ".group_factor", gemm.group_factor, kFactors, false);
  faults.curve(key + ".sm_factor", gemm.sm_factor, kSmFactors, false);
  if (!gemm.sm_factor.empty() && gemm.sm_factor.back().x > num_sms) {
    faults.add(key + ".sm_factor", fmt::format("got {} SMs of {}", gemm.sm_factor.back().x, num_sms));
  }
}

void check_gemms(Faults& faults, const HardwareProfile& profile) {
  std::set<std::pair<moe::GemmKind, DType>> have;
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
    const moe::GemmKind other = kind == moe::GemmKind::kDense ? moe::GemmKind::kGrouped : moe::GemmKind::kDense;
    if (!have.contains({other, dtype})) {
      faults.add("gemms", fmt::format("got {} without {}", name_of(kind, dtype), name_of(other, dtype)));
    }
  }
}

void check_links(Faults& faults, const std::string& key, const std::vector<LinkPoint>& links, int num_sms) {
  if (!faults.count(key, links.size(), kMaxLinks)) return;
  for (size_t i = 0; i < links.size(); ++i) {
    const LinkPoint& link = links[i];
    const std::string at = fmt::format("{}[{}]", key, i);
    if (link.sms < 0 || link.sms > num_sms) {
      faults.add(at + ".sms", fmt::format("got {}, wanted 0 to {}", link.sms, num_sms));
    }
    if (i > 0 && link.sms <= links[i - 1].sms) {
      faults.add(at + ".sms", fmt::format("got {}, wanted more than {} before it", link.sms, links[i - 1].sms));
    }
    faults.number(at + ".gbps", link.gbps, kRates);
    faults.number(at + ".alpha_us", link.alpha_us, kTimes);
    if (link.spread_gbps != 0) faults.number(at + ".spread_gbps", link.spread_gbps, kRates);
  }
}

void check_ops(Faults& faults, const std::map<std::string, OpCost>& ops) {
  for (const auto& [name, cost] : ops) {
    const std::string key = "ops." + name;
    if (std::ranges::find(kOpNames, name) == kOpNames.end()) {
      faults.add(key, fmt::format("no such op, wanted one of {}", fmt::join(kOpNames, ", ")));
    }
    if (!cost.us_of_bytes.empty()) {
      faults.curve(key + ".us_of_bytes", cost.us_of_bytes, kPositiveTimes, true, kBytes);
      continue;
    }
    faults.number(key + ".fixed_us", cost.fixed_us, kTimes);
    faults.number(key + ".gbps", cost.gbps, kRates);
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
  // The first point beyond x. Above the last point, the last segment is extended.
  auto right = std::ranges::upper_bound(curve, x, {}, &CurvePoint::x);
  if (right == curve.end()) --right;
  const CurvePoint& a = *(right - 1);
  const CurvePoint& b = *right;
  return a.y + (x - a.x) / (b.x - a.x) * (b.y - a.y);
}

std::vector<std::string> find_profile_faults(const HardwareProfile& profile) {
  Faults faults;
  if (profile.name.empty()) faults.add("name", "is empty");
  faults.number("num_sms", profile.num_sms, {0, kMaxSms});
  faults.number("ranks_per_node", profile.ranks_per_node, {1, kMaxRanksPerNode});
  faults.number("memory_gb", profile.memory_gb, kRates);
  faults.number("memory_gbps", profile.memory_gbps, kRates);
  check_gemms(faults, profile);
  check_links(faults, "links", profile.links, profile.num_sms);
  check_links(faults, "inter_links", profile.inter_links, profile.num_sms);
  faults.number("contention.compute", profile.contention.compute, kSlowdowns);
  faults.number("contention.comm", profile.contention.comm, kSlowdowns);
  faults.number("contention.uncapped_compute", profile.contention.uncapped_compute, kSlowdowns);
  faults.number("contention.uncapped_comm", profile.contention.uncapped_comm, kSlowdowns);
  faults.number("handoff_us", profile.handoff_us, kTimes);
  check_ops(faults, profile.ops);
  faults.number("attention_tflops", profile.attention_tflops, kRates);
  return faults.take();
}

const GemmProfile& find_gemm(const HardwareProfile& profile, moe::GemmKind kind, DType weight_dtype) {
  std::vector<std::string> known;
  for (const GemmProfile& gemm : profile.gemms) {
    if (gemm.kind == kind && gemm.weight_dtype == weight_dtype) return gemm;
    known.push_back(name_of(gemm.kind, gemm.weight_dtype));
  }
  fail(ErrorKind::kUsage, "profile",
       {.what = fmt::format("profile {} has no such GEMM times", profile.name),
        .got = name_of(kind, weight_dtype),
        .wanted = known.empty() ? "" : fmt::format("one of {}", fmt::join(known, ", ")),
        .hint = "epsmoe tune"});
}

}  // namespace eps::plan
