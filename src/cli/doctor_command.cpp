// epsmoe doctor: what this machine and this build can do, and what is off and why.
#include <fmt/format.h>
#include <unistd.h>

#include <memory>

#include "base/cpu_features.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/console.h"
#include "engine/factory.h"
#include "epsmoe/version.h"
#include "io/json.h"

namespace eps::cli {

double machine_memory_gb() {
  const auto pages = sysconf(_SC_PHYS_PAGES);
  const auto page = sysconf(_SC_PAGE_SIZE);
  return pages > 0 && page > 0 ? static_cast<double>(pages) * static_cast<double>(page) * 1e-9 : 0.0;
}

namespace {

std::vector<std::string> environment() {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (std::string_view(*entry).starts_with("EPSMOE_")) out.emplace_back(*entry);
  }
  return out;
}

int run(bool json) {
  const CpuFeatures& cpu = cpu_features();
  const auto backends = report_backends();
  if (json) {
    Json list = Json::array();
    for (const auto& b : backends) list.push_back({{"name", b.name}, {"available", b.available}, {"detail", b.detail}});
    const Json out = {{"version", EPSMOE_VERSION},         {"cpu", cpu.brand},
                      {"cores", cpu.usable_cores},         {"isa", cpu.isa_list()},
                      {"isa_level", to_string(cpu.isa())}, {"memory_gb", machine_memory_gb()},
                      {"l2_bytes", cpu.l2_bytes},          {"backends", list},
                      {"environment", environment()}};
    print_output("{}\n", dump_json(out));
    return 0;
  }
  print_output("epsmoe {}\n", EPSMOE_VERSION);
  print_output("cpu       {}, {} usable core{}, {:.1f} GB memory\n", printable(cpu.brand), cpu.usable_cores,
               cpu.usable_cores == 1 ? "" : "s", machine_memory_gb());
  print_output("isa       {} (kernels for {}; {} caps it)\n",
               cpu.isa_list().empty() ? "none that the kernels use" : cpu.isa_list(), to_string(cpu.isa()),
               kCpuIsaVariable);
  for (const auto& b : backends)
    print_output("{}  {:<10} {}\n", b.available ? "on " : "off", b.name, printable(b.detail, 400));
  for (const std::string& entry : environment()) print_output("env       {}\n", printable(entry));
  return 0;
}

}  // namespace

void add_doctor_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command = *app.add_subcommand("doctor", "Show what this machine can do: instruction sets and backends");
  const auto json = std::make_shared<bool>(false);
  command.add_flag("--json", *json, "One JSON object on stdout");
  command.callback([json, &chosen] { chosen.action = [json] { return run(*json); }; });
}

}  // namespace eps::cli
