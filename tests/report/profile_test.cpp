// Curves, the checks of profiles, their files, and the bundled profiles.
#include "plan/profile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "plan/builtin_profile.h"
#include "report/profile_store.h"

namespace eps::report {
namespace {

using Json = nlohmann::json;

plan::HardwareProfile sound_profile() {
  plan::HardwareProfile p;
  p.name = "box";
  p.device = "a \"box\" \\ with quotes, µ";
  p.origin = "measured";
  p.made = "today";
  p.sources = {{"gemms", "here"}, {"links", "there"}};
  p.num_sms = 132;
  p.ranks_per_node = 8;
  p.memory_gb = 0.1 + 0.2;
  p.memory_gbps = 1e11 / 3;
  const plan::Curve sm = {{66, 2}, {132, 1}};
  p.gemms = {
      {moe::GemmKind::kDense, DType::kBF16, 1.0 / 3, {{3072, 5120, {{1, 0.1}, {8, 1.2}, {64, 1e-7 + 3}}}}, {}, sm},
      {moe::GemmKind::kGrouped, DType::kBF16, 2, {{64, 32, {{1, 2}}}, {32, 64, {{1, 2}}}}, {{1, 1}, {8, 0.9}}, {}}};
  p.links = {{0, 100.5, 0}, {16, 370, 12.25, 800.5}};
  p.inter_links = {{16, 50, 30}};
  p.contention = {0.01, 0.02, 0.3, 9};
  p.handoff_us = 4;
  for (const char* op : {"gather", "silu_mul", "reduce", "finish", "pack"}) p.ops[op] = {3, 3600.7};
  p.ops["norm"] = {0, 0, {{4096, 0.75}, {1e6, 1.0 / 3 + 9}}};
  p.attention_tflops = 550;
  return p;
}

TEST(Curve, IsConstantBelowLinearBetweenAndExtendedAboveOnRequest) {
  const plan::Curve curve = {{2, 10}, {4, 20}, {8, 60}};
  EXPECT_EQ(plan::curve_at(curve, -1, true), 10);
  EXPECT_EQ(plan::curve_at(curve, 2, true), 10);
  EXPECT_EQ(plan::curve_at(curve, 3, false), 15);
  EXPECT_EQ(plan::curve_at(curve, 4, true), 20);
  EXPECT_EQ(plan::curve_at(curve, 5, true), 30);
  EXPECT_EQ(plan::curve_at(curve, 8, true), 60);
  EXPECT_EQ(plan::curve_at(curve, 8, false), 60);
  EXPECT_EQ(plan::curve_at(curve, 10, true), 80);
  EXPECT_EQ(plan::curve_at(curve, 10, false), 60);
  const plan::Curve point = {{2, 10}};
  for (const double x : {1.0, 2.0, 3.0}) EXPECT_EQ(plan::curve_at(point, x, true), 10);
  EXPECT_THROW(plan::curve_at({}, 1, true), Error);
}

TEST(Profile, SurvivesItsFileBitForBit) {
  plan::HardwareProfile profile = sound_profile();
  profile.gemms.back().fuses_silu_mul = true;
  EXPECT_EQ(plan::find_profile_faults(profile), std::vector<std::string>{});
  const std::string json = to_json(profile);
  EXPECT_EQ(parse_profile(json, "file"), profile);
  EXPECT_EQ(to_json(parse_profile(json, "file")), json);
  EXPECT_NE(json.find("\n  \"links\": [{\"sms\":"), std::string::npos) << "short values stay on one line:\n" << json;
}

TEST(Profile, TheBuiltinProfileIsValid) {
  EXPECT_EQ(plan::find_profile_faults(plan::builtin_cpu_profile(2)), std::vector<std::string>{});
}

TEST(Profile, FindsTheGemmOrListsTheAvailableOnes) {
  const plan::HardwareProfile profile = sound_profile();
  EXPECT_EQ(plan::find_gemm(profile, moe::GemmKind::kGrouped, DType::kBF16).call_us, 2);
  try {
    plan::find_gemm(profile, moe::GemmKind::kDense, DType::kF8E4M3);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("got dense fp8, wanted one of dense bf16, grouped bf16"), std::string::npos)
        << e.what();
  }
}

// Each edit makes the profile invalid in one way; the message names the file and the key.
struct Broken {
  const char* wanted;  // part of the message
  void (*edit)(Json&);
};

void check_refused(const std::vector<Broken>& cases) {
  for (const Broken& broken : cases) {
    Json json = Json::parse(to_json(sound_profile()));
    broken.edit(json);
    try {
      parse_profile(json.dump(), "file.json");
      ADD_FAILURE() << broken.wanted;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInput) << e.what();
      EXPECT_TRUE(std::string(e.what()).starts_with("file.json: ")) << e.what();
      EXPECT_NE(std::string(e.what()).find(broken.wanted), std::string::npos)
          << e.what() << "\nwanted " << broken.wanted;
    }
  }
}

TEST(Profile, InvalidFilesAreRefusedByKey) {
  const std::vector<Broken> cases = {
      {"missing key \"memory_gb\"", [](Json& j) { j.erase("memory_gb"); }},
      {"missing key \"gemms[0].call_us\"", [](Json& j) { j["gemms"][0].erase("call_us"); }},
      {"missing key \"links\"", [](Json& j) { j.erase("links"); }},
      {"missing key \"epsmoe_profile\"", [](Json& j) { j.erase("epsmoe_profile"); }},
      {"unknown key \"watts\"", [](Json& j) { j["watts"] = 700; }},
      {"unknown key \"gemms[1].shapes[0].m\"", [](Json& j) { j["gemms"][1]["shapes"][0]["m"] = 1; }},
      {"unknown key \"links[0].speed\"", [](Json& j) { j["links"][0]["speed"] = 1; }},
      {"unknown key \"contention.memory\"", [](Json& j) { j["contention"]["memory"] = 1; }},
      {"unknown key \"ops.pack.rate\"", [](Json& j) { j["ops"]["pack"]["rate"] = 1; }},
      {"key \"epsmoe_profile\": got 2, wanted 1", [](Json& j) { j["epsmoe_profile"] = 2; }},
      {"key \"links[1].gbps\": got -1", [](Json& j) { j["links"][1]["gbps"] = -1; }},
      {"key \"links[1].gbps\": got 0", [](Json& j) { j["links"][1]["gbps"] = 0; }},
      {"key \"links[1].sms\": got 0, wanted more than 0", [](Json& j) { j["links"][1]["sms"] = 0; }},
      {"key \"links[1].sms\": got 200", [](Json& j) { j["links"][1]["sms"] = 200; }},
      {"key \"inter_links[0].alpha_us\"", [](Json& j) { j["inter_links"][0]["alpha_us"] = -3; }},
      {"key \"handoff_us\"", [](Json& j) { j["handoff_us"] = -0.5; }},
      {"key \"handoff_us\": got \"4\", wanted a number", [](Json& j) { j["handoff_us"] = "4"; }},
      {"key \"attention_tflops\"", [](Json& j) { j["attention_tflops"] = 0; }},
      {"key \"ops.dance\": no such op",
       [](Json& j) {
         j["ops"]["dance"] = {{"fixed_us", 1}, {"gbps", 1}};
       }},
      {"unknown key \"ops.norm.gbps\"", [](Json& j) { j["ops"]["norm"]["gbps"] = 1; }},
      {"key \"ops.norm.us_of_bytes\": got a list of 0, wanted at least one point",
       [](Json& j) { j["ops"]["norm"]["us_of_bytes"] = Json::array(); }},
      {"key \"ops.norm.us_of_bytes[1]\": got y = 0.5, wanted no less than 0.75",
       [](Json& j) { j["ops"]["norm"]["us_of_bytes"][1][1] = 0.5; }},
      {"key \"ops.norm.us_of_bytes[1]\": got x = 1e+16, wanted 1 to",
       [](Json& j) { j["ops"]["norm"]["us_of_bytes"][1][0] = 1e16; }},
      {"key \"ops.reduce\": got nothing", [](Json& j) { j["ops"].erase("reduce"); }},
      {"key \"gemms[1]\": got dense bf16 a second time", [](Json& j) { j["gemms"][1]["kind"] = "dense"; }},
      {"key \"gemms\": got dense fp8 without grouped fp8", [](Json& j) { j["gemms"][0]["weight_dtype"] = "fp8"; }},
      {"key \"gemms[0].weight_dtype\": got \"i32\"", [](Json& j) { j["gemms"][0]["weight_dtype"] = "i32"; }},
      {"key \"gemms[0].kind\": got \"sparse\"", [](Json& j) { j["gemms"][0]["kind"] = "sparse"; }},
      {"key \"gemms[0].shapes\": got none", [](Json& j) { j["gemms"][0]["shapes"] = Json::array(); }},
      {"key \"gemms[1].shapes[1]\": got n = 64, k = 32 a second time",
       [](Json& j) { j["gemms"][1]["shapes"][1]["n"] = 64, j["gemms"][1]["shapes"][1]["k"] = 32; }},
      {"key \"gemms[0].shapes[0].us_of_rows[1]\": got x = 1, wanted more than 1",
       [](Json& j) { j["gemms"][0]["shapes"][0]["us_of_rows"][1][0] = 1; }},
      {"key \"gemms[0].shapes[0].us_of_rows[1]\": got y = 0.01",
       [](Json& j) { j["gemms"][0]["shapes"][0]["us_of_rows"][1][1] = 0.01; }},
      {"key \"gemms[0].shapes[0].us_of_rows\": got no point",
       [](Json& j) { j["gemms"][0]["shapes"][0].erase("us_of_rows"); }},
      {"key \"gemms[0].sm_factor\": got a list of 1, wanted a list of [x, y]",
       [](Json& j) {
         j["gemms"][0]["sm_factor"] = {{1, 2, 3}};
       }},
      {"key \"gemms[0].sm_factor[1]\": got y = 0.5, wanted 1 to 10000",
       [](Json& j) { j["gemms"][0]["sm_factor"][1][1] = 0.5; }},
      {"key \"gemms[0].sm_factor\": got 132 SMs of 100 (and",
       [](Json& j) {
         j["num_sms"] = 100, j["links"] = Json::array();
         j["links"].push_back({{"sms", -1}, {"gbps", 1}, {"alpha_us", 1}});
       }},
  };
  check_refused(cases);
}

// Well-formed numbers that no device has. Each made planning hang, overflow or fail an internal check in the past.
TEST(Profile, AbsurdNumbersAreRefusedByKeyAndRange) {
  check_refused({
      {"key \"contention.compute\": got 1e+16, wanted 0 to 1000", [](Json& j) { j["contention"]["compute"] = 1e16; }},
      {"key \"contention.uncapped_comm\": got 1e+16", [](Json& j) { j["contention"]["uncapped_comm"] = 1e16; }},
      {"key \"handoff_us\": got 1e+308, wanted 0 to 1000000000", [](Json& j) { j["handoff_us"] = 1e308; }},
      {"key \"memory_gbps\": got 1e-300, wanted 1e-06 to 1e+12", [](Json& j) { j["memory_gbps"] = 1e-300; }},
      {"key \"links[0].gbps\": got 1e-300", [](Json& j) { j["links"][0]["gbps"] = 1e-300; }},
      {"key \"links[0].gbps\": got 5e-324", [](Json& j) { j["links"][0]["gbps"] = 5e-324; }},
      {"key \"links[1].alpha_us\": got 1e+300", [](Json& j) { j["links"][1]["alpha_us"] = 1e300; }},
      {"key \"ops.pack.gbps\": got 1e+300", [](Json& j) { j["ops"]["pack"]["gbps"] = 1e300; }},
      {"key \"ops.pack.fixed_us\": got 10000000000, wanted", [](Json& j) { j["ops"]["pack"]["fixed_us"] = 1e10; }},
      {"key \"attention_tflops\": got 1e-300", [](Json& j) { j["attention_tflops"] = 1e-300; }},
      {"key \"memory_gb\": got 1e+300", [](Json& j) { j["memory_gb"] = 1e300; }},
      {"key \"num_sms\": got 1000000", [](Json& j) { j["num_sms"] = 1000000; }},
      {"key \"ranks_per_node\": got 2000000000", [](Json& j) { j["ranks_per_node"] = 2000000000; }},
      {"key \"gemms[0].call_us\": got 1e+300", [](Json& j) { j["gemms"][0]["call_us"] = 1e300; }},
      {"key \"gemms[0].shapes[0]\": got n = 9007199254740992, k = 5120, wanted 1 to 2147483648",
       [](Json& j) { j["gemms"][0]["shapes"][0]["n"] = int64_t{1} << 53; }},
      {"key \"gemms[0].shapes[0].us_of_rows[0]\": got y = 5e-324",
       [](Json& j) { j["gemms"][0]["shapes"][0]["us_of_rows"][0][1] = 5e-324; }},
      {"key \"gemms[0].shapes[0].us_of_rows[2]\": got x = 1e+300",
       [](Json& j) { j["gemms"][0]["shapes"][0]["us_of_rows"][2][0] = 1e300; }},
      {"key \"gemms[1].group_factor[1]\": got y = 1e+300",
       [](Json& j) { j["gemms"][1]["group_factor"][1][1] = 1e300; }},
      {"key \"gemms[0].shapes[0].us_of_rows\": got 100000, wanted 4096 at most",
       [](Json& j) {
         Json points = Json::array();
         for (int i = 1; i <= 100000; ++i) points.push_back({i, i});
         j["gemms"][0]["shapes"][0]["us_of_rows"] = points;
       }},
      {"key \"links\": got 100, wanted 64 at most",
       [](Json& j) {
         for (int i = 0; i < 98; ++i) j["links"].push_back({{"sms", 17 + i}, {"gbps", 1}, {"alpha_us", 1}});
       }},
  });
}

TEST(Profile, TheSignOfZeroDoesNotMatter) {
  Json json = Json::parse(to_json(sound_profile()));
  json["handoff_us"] = -0.0;
  EXPECT_EQ(parse_profile(json.dump(), "file").handoff_us, 0.0);
}

TEST(Profile, NotANumberIsNeverARate) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<void (*)(plan::HardwareProfile&, double)> edits = {
      [](plan::HardwareProfile& p, double v) { p.links[0].gbps = v; },
      [](plan::HardwareProfile& p, double v) { p.memory_gbps = v; },
      [](plan::HardwareProfile& p, double v) { p.contention.uncapped_comm = v; },
      [](plan::HardwareProfile& p, double v) { p.gemms[0].call_us = v; },
      [](plan::HardwareProfile& p, double v) { p.gemms[0].shapes[0].us_of_rows[2].y = v; },
      [](plan::HardwareProfile& p, double v) { p.gemms[0].shapes[0].us_of_rows[2].x = v; },
      [](plan::HardwareProfile& p, double v) { p.ops["pack"].fixed_us = v; },
  };
  for (const auto edit : edits) {
    for (const double value : {nan, inf, -inf}) {
      plan::HardwareProfile profile = sound_profile();
      edit(profile, value);
      EXPECT_FALSE(plan::find_profile_faults(profile).empty());
    }
  }
  std::string json = to_json(sound_profile());
  json.replace(json.find("550"), 3, "NaN");
  EXPECT_THROW(parse_profile(json, "file"), Error);
}

// Whether `key` or something above it has an entry: "ops" covers "ops.pack".
bool has_source(const plan::HardwareProfile& profile, std::string key) {
  while (true) {
    const auto it = profile.sources.find(key);
    if (it != profile.sources.end()) return it->second.size() > 10;
    const size_t dot = key.rfind('.');
    if (dot == std::string::npos) return false;
    key.resize(dot);
  }
}

TEST(BundledProfiles, AreValidAndNameTheSourceOfEachNumber) {
  std::vector<std::string> names;
  for (const BundledProfile& bundled : bundled_profiles()) {
    names.emplace_back(bundled.name);
    const plan::HardwareProfile p = bundled_profile(bundled.name);
    EXPECT_EQ(p.name, bundled.name);
    EXPECT_EQ(parse_profile(to_json(p), "again"), p);
    std::vector<std::string> keys = {"ranks_per_node", "memory_gb",  "memory_gbps",
                                     "contention",     "handoff_us", "attention_tflops"};
    if (p.num_sms > 0) keys.emplace_back("num_sms");
    if (!p.links.empty()) keys.emplace_back("links");
    if (!p.inter_links.empty()) keys.emplace_back("inter_links");
    for (const auto& [op, cost] : p.ops) keys.push_back("ops." + op);
    for (const plan::GemmProfile& gemm : p.gemms) {
      const std::string key = fmt::format("gemms.{}.{}", moe::to_string(gemm.kind), to_string(gemm.weight_dtype));
      keys.push_back(key);
      keys.push_back(key + ".call_us");
      if (!gemm.sm_factor.empty()) keys.push_back(key + ".sm_factor");
      if (!gemm.group_factor.empty()) keys.push_back(key + ".group_factor");
    }
    for (const std::string& key : keys) EXPECT_TRUE(has_source(p, key)) << bundled.name << " " << key;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"cpu", "cuda-h100", "cuda-h200", "h200", "h800"}));
  try {
    bundled_profile("b200");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("got b200, wanted one of cpu, cuda-h100, cuda-h200, h200, h800"),
              std::string::npos)
        << e.what();
  }
}

// The curves reproduce the measurements that they were made from.
TEST(BundledProfiles, H200ReproducesTheMeasuredRates) {
  const plan::HardwareProfile p = bundled_profile("h200");
  const auto tflops = [&](moe::GemmKind kind, DType dtype, int64_t rows) {
    const plan::GemmProfile& gemm = plan::find_gemm(p, kind, dtype);
    const plan::GemmShapeCurve& shape = gemm.shapes[0];
    const double us = (kind == moe::GemmKind::kDense ? 20 : 1) * gemm.call_us +
                      20 * plan::curve_at(shape.us_of_rows, static_cast<double>(rows), true);
    return 20 * 2.0 * static_cast<double>(rows * shape.n * shape.k) * 1e-6 / us;
  };
  EXPECT_NEAR(tflops(moe::GemmKind::kDense, DType::kBF16, 8), 19, 0.5);
  EXPECT_NEAR(tflops(moe::GemmKind::kDense, DType::kBF16, 1024), 648, 3);
  EXPECT_NEAR(tflops(moe::GemmKind::kGrouped, DType::kBF16, 256), 646, 3);
  EXPECT_NEAR(tflops(moe::GemmKind::kGrouped, DType::kBF16, 1024), 748, 3);
  EXPECT_NEAR(tflops(moe::GemmKind::kGrouped, DType::kF8E4M3, 512), 1209, 5);
}

}  // namespace
}  // namespace eps::report
