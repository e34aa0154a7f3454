// Writes profiles as files that are easy to read and lose no bit of a number.
#include <cmath>

#include "io/json.h"
#include "report/profile_store.h"

namespace eps::report {
namespace {

using OrderedJson = nlohmann::ordered_json;

// Writes whole numbers without a fraction: "2048", not "2048.0". Both read back as the same double.
OrderedJson number(double value) {
  constexpr double kExactIntegers = 9007199254740992.0;  // 2^53
  if (std::nearbyint(value) == value && std::abs(value) < kExactIntegers) return static_cast<int64_t>(value);
  return value;
}

OrderedJson curve_json(const plan::Curve& curve) {
  OrderedJson list = OrderedJson::array();
  for (const plan::CurvePoint& point : curve) list.push_back(OrderedJson::array({number(point.x), number(point.y)}));
  return list;
}

OrderedJson gemm_json(const plan::GemmProfile& gemm) {
  OrderedJson shapes = OrderedJson::array();
  for (const plan::GemmShapeCurve& shape : gemm.shapes) {
    shapes.push_back({{"n", shape.n}, {"k", shape.k}, {"us_of_rows", curve_json(shape.us_of_rows)}});
  }
  OrderedJson out = {{"kind", moe::to_string(gemm.kind)},
                     {"weight_dtype", to_string(gemm.weight_dtype)},
                     {"call_us", number(gemm.call_us)},
                     {"shapes", shapes}};
  if (!gemm.group_factor.empty()) out["group_factor"] = curve_json(gemm.group_factor);
  if (!gemm.sm_factor.empty()) out["sm_factor"] = curve_json(gemm.sm_factor);
  if (gemm.fuses_silu_mul) out["fuses_silu_mul"] = true;
  return out;
}

OrderedJson links_json(const std::vector<plan::LinkPoint>& links) {
  OrderedJson list = OrderedJson::array();
  for (const plan::LinkPoint& link : links) {
    list.push_back({{"sms", link.sms}, {"gbps", number(link.gbps)}, {"alpha_us", number(link.alpha_us)}});
    if (link.spread_gbps > 0) list.back()["spread_gbps"] = number(link.spread_gbps);
  }
  return list;
}

constexpr size_t kLineWidth = 118;

// Writes a curve's points, as many per line as fit.
std::string fill_lines(const OrderedJson& points, size_t indent) {
  const std::string begin = "\n" + std::string(indent + 2, ' ');
  std::string out = "[" + begin;
  size_t column = indent + 2;
  for (size_t i = 0; i < points.size(); ++i) {
    const std::string point = io::dump_json(points[i]) + (i + 1 < points.size() ? "," : "");
    if (column > indent + 2 && column + 1 + point.size() > kLineWidth) {
      out += begin;
      column = indent + 2;
    } else if (column > indent + 2) {
      out += " ";
    }
    out += point;
    column += 1 + point.size();
  }
  return out + "\n" + std::string(indent, ' ') + "]";
}

// Writes a value on one line if it fits, else one element per line.
std::string format_value(const OrderedJson& value, size_t indent) {
  std::string line = io::dump_json(value);
  if (!value.is_structured() || value.empty() || indent + line.size() <= kLineWidth) return line;
  if (value.is_array() && value[0].is_array()) return fill_lines(value, indent);
  const std::string inner(indent + 2, ' ');
  std::string out;
  for (const auto& item : value.items()) {
    out += out.empty() ? "\n" : ",\n";
    out += inner;
    if (value.is_object()) out += io::dump_json(OrderedJson(item.key())) + ": ";
    out += format_value(item.value(), indent + 2);
  }
  out += "\n" + std::string(indent, ' ');
  return value.is_object() ? "{" + out + "}" : "[" + out + "]";
}

}  // namespace

std::string to_json(const plan::HardwareProfile& profile) {
  OrderedJson gemms = OrderedJson::array();
  for (const plan::GemmProfile& gemm : profile.gemms) gemms.push_back(gemm_json(gemm));
  OrderedJson sources = OrderedJson::object();
  for (const auto& [key, source] : profile.sources) sources[key] = source;
  OrderedJson ops = OrderedJson::object();
  for (const auto& [name, cost] : profile.ops) {
    if (!cost.us_of_bytes.empty()) {
      ops[name] = {{"us_of_bytes", curve_json(cost.us_of_bytes)}};
    } else {
      ops[name] = {{"fixed_us", number(cost.fixed_us)}, {"gbps", number(cost.gbps)}};
    }
  }
  const plan::Contention& contention = profile.contention;
  const OrderedJson out = {{"epsmoe_profile", plan::HardwareProfile::kVersion},
                           {"name", profile.name},
                           {"device", profile.device},
                           {"origin", profile.origin},
                           {"made", profile.made},
                           {"num_sms", profile.num_sms},
                           {"ranks_per_node", profile.ranks_per_node},
                           {"memory_gb", number(profile.memory_gb)},
                           {"memory_gbps", number(profile.memory_gbps)},
                           {"gemms", gemms},
                           {"links", links_json(profile.links)},
                           {"inter_links", links_json(profile.inter_links)},
                           {"contention",
                            {{"compute", number(contention.compute)},
                             {"comm", number(contention.comm)},
                             {"uncapped_compute", number(contention.uncapped_compute)},
                             {"uncapped_comm", number(contention.uncapped_comm)}}},
                           {"handoff_us", number(profile.handoff_us)},
                           {"ops", ops},
                           {"attention_tflops", number(profile.attention_tflops)},
                           {"sources", sources}};
  return format_value(out, 0) + "\n";
}

}  // namespace eps::report
