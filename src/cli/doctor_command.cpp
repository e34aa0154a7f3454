// epsmoe doctor: what this machine and this build can do, and what is off and why.
#include <fmt/format.h>
#include <unistd.h>

#include <memory>

#include "base/cpu_features.h"
#include "base/error.h"
#include "cli/command.h"
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

Json to_json(const GpuList& list) {
  Json gpus = Json::array();
  for (const GpuInfo& gpu : list.gpus) {
    gpus.push_back({{"name", gpu.name},
                    {"memory_gb", gpu.memory_gb},
                    {"sms", gpu.num_sms},
                    {"compute_capability", gpu.compute_capability}});
  }
  return {{"gpus", gpus},
          {"peer_access", list.can_read},
          {"driver", list.driver},
          {"driver_cuda", list.driver_cuda},
          {"cuda", list.cuda}};
}

void print(const GpuList& list) {
  if (list.gpus.empty()) return;
  fmt::print("driver    {}, for CUDA up to {}; the backend was built with CUDA {}\n",
             list.driver.empty() ? "of unknown version" : list.driver, list.driver_cuda, list.cuda);
  for (size_t i = 0; i < list.gpus.size(); ++i) {
    const GpuInfo& gpu = list.gpus[i];
    fmt::print("gpu {:<5} {}, {:.0f} GB, {} SMs, compute capability {}\n", i, gpu.name, gpu.memory_gb, gpu.num_sms,
               gpu.compute_capability);
  }
  if (list.gpus.size() == 1) return;
  // Ranks need it between their GPUs.
  std::string head;
  for (size_t i = 0; i < list.gpus.size(); ++i) head += fmt::format(" {:>4}", i);
  fmt::print("peers    {}   (whether a GPU reads the memory of another one)\n", head);
  for (size_t i = 0; i < list.gpus.size(); ++i) {
    std::string row;
    for (size_t j = 0; j < list.gpus.size(); ++j) {
      row += fmt::format(" {:>4}", i == j ? "-" : list.can_read[i][j] ? "yes" : "no");
    }
    fmt::print("  gpu {:<3}{}\n", i, row);
  }
}

int run(bool json) {
  const CpuFeatures& cpu = cpu_features();
  const auto backends = report_backends();
  const GpuList gpus = report_gpus();
  if (json) {
    Json list = Json::array();
    for (const auto& b : backends) list.push_back({{"name", b.name}, {"available", b.available}, {"detail", b.detail}});
    const Json out = {{"version", EPSMOE_VERSION},
                      {"cpu", cpu.brand},
                      {"cores", cpu.usable_cores},
                      {"isa", cpu.isa_list()},
                      {"memory_gb", machine_memory_gb()},
                      {"l2_bytes", cpu.l2_bytes},
                      {"backends", list},
                      {"cuda", to_json(gpus)},
                      {"environment", environment()}};
    fmt::print("{}\n", dump_json(out));
    return 0;
  }
  fmt::print("epsmoe {}\n", EPSMOE_VERSION);
  fmt::print("cpu       {}, {} usable core{}, {:.1f} GB memory\n", printable(cpu.brand), cpu.usable_cores,
             cpu.usable_cores == 1 ? "" : "s", machine_memory_gb());
  fmt::print("isa       {}\n", cpu.isa_list().empty() ? "none that the kernels use" : cpu.isa_list());
  for (const auto& b : backends)
    fmt::print("{}  {:<10} {}\n", b.available ? "on " : "off", b.name, printable(b.detail, 400));
  print(gpus);
  for (const std::string& entry : environment()) fmt::print("env       {}\n", printable(entry));
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
