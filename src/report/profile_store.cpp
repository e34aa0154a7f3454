#include "report/profile_store.h"

#include <algorithm>

#include "base/error.h"
#include "io/json.h"
#include "report/json_words.h"

namespace eps::report {
namespace {

constexpr std::string_view kVersionKey = "epsmoe_profile";

plan::Curve read_curve(const io::JsonObject& object, std::string_view key) {
  constexpr const char* kWanted = "a list of [x, y], each two numbers";
  const io::Json* list = object.find(key);
  if (list == nullptr) return {};
  if (!list->is_array()) object.reject(key, kWanted);
  plan::Curve curve;
  for (const io::Json& point : *list) {
    if (!point.is_array() || point.size() != 2 || !point[0].is_number() || !point[1].is_number()) {
      object.reject(key, kWanted);
    }
    curve.push_back({point[0].get<double>(), point[1].get<double>()});
  }
  return curve;
}

moe::GemmKind read_kind(const io::JsonObject& object) {
  const std::string kind = object.get<std::string>("kind");
  for (const moe::GemmKind known : {moe::GemmKind::kDense, moe::GemmKind::kGrouped}) {
    if (kind == moe::to_string(known)) return known;
  }
  object.reject("kind", "dense or grouped");
}

DType read_weight_dtype(const io::JsonObject& object) {
  const auto dtype = parse_dtype(object.get<std::string>("weight_dtype"));
  const auto known = {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3};
  if (!dtype || std::ranges::find(known, *dtype) == known.end()) {
    object.reject("weight_dtype", "f32, bf16, f16 or fp8");
  }
  return *dtype;
}

plan::GemmProfile read_gemm(const io::JsonObject& object) {
  refuse_unknown_keys(object,
                      {"kind", "weight_dtype", "call_us", "shapes", "group_factor", "sm_factor", "fuses_silu_mul"});
  plan::GemmProfile gemm;
  gemm.kind = read_kind(object);
  gemm.weight_dtype = read_weight_dtype(object);
  gemm.call_us = object.get<double>("call_us");
  for (const io::JsonObject& shape : object.children("shapes")) {
    refuse_unknown_keys(shape, {"n", "k", "us_of_rows"});
    gemm.shapes.push_back({shape.get<int64_t>("n"), shape.get<int64_t>("k"), read_curve(shape, "us_of_rows")});
  }
  gemm.group_factor = read_curve(object, "group_factor");
  gemm.sm_factor = read_curve(object, "sm_factor");
  gemm.fuses_silu_mul = object.get_or("fuses_silu_mul", false);
  return gemm;
}

std::vector<plan::LinkPoint> read_links(const io::JsonObject& object, std::string_view key) {
  std::vector<plan::LinkPoint> links;
  for (const io::JsonObject& link : object.children(key)) {
    refuse_unknown_keys(link, {"sms", "gbps", "alpha_us", "spread_gbps"});
    links.push_back({link.get<int>("sms"), link.get<double>("gbps"), link.get<double>("alpha_us"),
                     link.get_or("spread_gbps", 0.0)});
  }
  return links;
}

plan::Contention read_contention(const io::JsonObject& object) {
  refuse_unknown_keys(object, {"compute", "comm", "uncapped_compute", "uncapped_comm"});
  return {object.get<double>("compute"), object.get<double>("comm"), object.get<double>("uncapped_compute"),
          object.get<double>("uncapped_comm")};
}

std::map<std::string, plan::OpCost> read_ops(const io::JsonObject& object) {
  std::map<std::string, plan::OpCost> ops;
  for (const auto& item : object.value().items()) {
    const io::JsonObject cost = object.child(item.key());
    if (cost.find("us_of_bytes") != nullptr) {
      refuse_unknown_keys(cost, {"us_of_bytes"});
      ops[item.key()] = {0, 0, read_curve(cost, "us_of_bytes")};
      if (ops[item.key()].us_of_bytes.empty()) cost.reject("us_of_bytes", "at least one point");
      continue;
    }
    refuse_unknown_keys(cost, {"fixed_us", "gbps"});
    ops[item.key()] = {cost.get<double>("fixed_us"), cost.get<double>("gbps")};
  }
  return ops;
}

std::map<std::string, std::string> read_sources(const io::JsonObject& object) {
  std::map<std::string, std::string> sources;
  for (const auto& item : object.value().items()) sources[item.key()] = object.get<std::string>(item.key());
  return sources;
}

void check_version(const io::JsonObject& object) {
  const auto version = object.get<int64_t>(kVersionKey);
  if (version == plan::HardwareProfile::kVersion) return;
  object.reject(kVersionKey, fmt::format("{}, the version this build reads", plan::HardwareProfile::kVersion),
                "epsmoe tune, which measures a profile anew");
}

}  // namespace

plan::HardwareProfile parse_profile(std::string_view json, const std::string& where) {
  const io::Json value = io::parse_json(json, where);
  const io::JsonObject object(value, where);
  check_version(object);
  refuse_unknown_keys(
      object, {kVersionKey, "name", "device", "origin", "made", "sources", "num_sms", "ranks_per_node", "memory_gb",
               "memory_gbps", "gemms", "links", "inter_links", "contention", "handoff_us", "ops", "attention_tflops"});
  plan::HardwareProfile profile;
  profile.name = object.get<std::string>("name");
  profile.device = object.get<std::string>("device");
  profile.origin = object.get<std::string>("origin");
  profile.made = object.get<std::string>("made");
  profile.sources = read_sources(object.child("sources"));
  profile.num_sms = object.get<int>("num_sms");
  profile.ranks_per_node = object.get<int>("ranks_per_node");
  profile.memory_gb = object.get<double>("memory_gb");
  profile.memory_gbps = object.get<double>("memory_gbps");
  for (const io::JsonObject& gemm : object.children("gemms")) profile.gemms.push_back(read_gemm(gemm));
  profile.links = read_links(object, "links");
  profile.inter_links = read_links(object, "inter_links");
  profile.contention = read_contention(object.child("contention"));
  profile.handoff_us = object.get<double>("handoff_us");
  profile.ops = read_ops(object.child("ops"));
  profile.attention_tflops = object.get<double>("attention_tflops");

  const std::vector<std::string> faults = plan::find_profile_faults(profile);
  if (!faults.empty()) {
    const std::string more = faults.size() > 1 ? fmt::format(" (and {} more)", faults.size() - 1) : "";
    fail(ErrorKind::kInput, where, {.what = faults.front() + more, .got = "", .wanted = "", .hint = ""});
  }
  return profile;
}

plan::HardwareProfile bundled_profile(std::string_view name) {
  std::vector<std::string_view> known;
  for (const BundledProfile& profile : bundled_profiles()) {
    if (profile.name == name) return parse_profile(profile.json, fmt::format("bundled profile {}", name));
    known.push_back(profile.name);
  }
  fail(ErrorKind::kUsage, "profile",
       {.what = "no such profile",
        .got = std::string(name),
        .wanted = fmt::format("one of {}", fmt::join(known, ", ")),
        .hint = ""});
}

}  // namespace eps::report
