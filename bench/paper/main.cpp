// epsmoe_paper_tables: the EPS-MoE paper's tables 1 to 7, each figure beside what our planner and simulator say for a
// profile that was fitted to tables 5 and 6 alone (epsmoe_paper_fit). docs/paper.md explains them.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "report/profile_store.h"
#include "tables.h"

namespace {

using namespace eps;         // NOLINT(google-build-using-namespace): a program of its own
using namespace eps::paper;  // NOLINT(google-build-using-namespace)

plan::HardwareProfile read_profile(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    fail(ErrorKind::kInput, path, {.what = "cannot be read", .got = "", .wanted = "a profile", .hint = ""});
  }
  std::stringstream text;
  text << file.rdbuf();
  return report::parse_profile(text.str(), path);
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  if (!(file << text)) {
    fail(ErrorKind::kInput, path, {.what = "cannot be written", .got = "", .wanted = "", .hint = ""});
  }
}

Report make_report(const TableOptions& options, const std::vector<int>& wanted) {
  Report report;
  report.heading = {
      fmt::format("Profile: {}. Reading of table 5 and 6: {}.", options.profile.name, to_string(options.reading)),
      fmt::format("Weights of tables 2 to 4: {}.", to_string(options.weights))};
  const auto want = [&wanted](int table) { return wanted.empty() || std::ranges::find(wanted, table) != wanted.end(); };
  if (want(1)) report.sections.push_back(volumes(options));
  if (want(2)) report.sections.push_back(deepseek_gains(options));
  if (want(3)) report.sections.push_back(mixtral_ttft(options));
  if (want(3)) report.sections.push_back(dbrx_ttft(options));
  if (want(4)) report.sections.push_back(arctic_ttft(options));
  if (want(5)) report.sections.push_back(layer_times(options, 0));
  if (want(5)) report.sections.push_back(layer_times(options, 7));
  if (want(6)) report.sections.push_back(sm_budgets(options));
  if (want(7)) report.sections.push_back(pipeline_gains(options));
  return report;
}

int run(int argc, char** argv) {
  TableOptions options;
  std::string profile = EPSMOE_PAPER_PROFILE;
  std::string weights = "fp8";
  std::string json;
  std::vector<int> tables;
  bool plain_base = false;
  bool ring = false;
  Reading& reading = options.reading;
  bool copies = false;
  CLI::App app{"The EPS-MoE paper's tables, each figure beside ours: paper / ours (error)"};
  app.add_option("--profile", profile, "File of the profile to use")->capture_default_str();
  app.add_option("--table", tables, "Only these tables, 1 to 7")->check(CLI::Range(1, 7));
  app.add_option("--json", json, "Also write an object a cell, one a line, to this file")->type_name("FILE");
  app.add_option("--weights", weights, "Weights of tables 2 to 4: fp8 or bf16 (the bundled profile's GEMMs)")
      ->check(CLI::IsMember({"fp8", "bf16"}))
      ->capture_default_str();
  app.add_option("--t2-batch", options.t2_batch, "Sequences of table 2, a multiple of 8")->capture_default_str();
  app.add_flag("--shared-overlap", options.shared_overlap, "Plans may run shared experts under messages");
  app.add_flag("--plain-base", plain_base, "The baseline of table 3 gathers and adds rows as our layers do");
  app.add_flag("--ring", ring, "Collectives of tensor parallelism run at the bundled h800 profile's rate");
  app.add_option("--top-k", reading.top_k, "Experts a token in tables 5 to 7")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_flag("--copies", copies, "In those a token travels once an expert instead of once a GPU");
  CLI11_PARSE(app, argc, argv);
  reading.once_per_rank = !copies;
  options.fused_base = !plain_base;
  if (ring) options.ring = report::bundled_profile("h800").links.back();
  options.weights = weights == "bf16" ? DType::kBF16 : DType::kF8E4M3;
  options.profile = read_profile(profile);
  const Report report = make_report(options, tables);
  fmt::print("{}", format_markdown(report));
  if (!json.empty()) write_file(json, format_json_lines(report));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
