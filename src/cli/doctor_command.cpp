// epsmoe doctor: shows what this machine and this build support, and which features are disabled and why.
#include <fmt/format.h>
#include <unistd.h>

#include <memory>

#include "base/cpu_features.h"
#include "base/error.h"
#include "base/machine_memory.h"
#include "cli/command.h"
#include "cli/console.h"
#include "engine/factory.h"
#include "engine/profile_choice.h"
#include "epsmoe/version.h"
#include "io/json.h"

namespace eps::cli {

double machine_memory_gb() { return static_cast<double>(machine_memory_bytes()) * 1e-9; }

namespace {

std::vector<std::string> environment() {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (std::string_view(*entry).starts_with("EPSMOE_")) out.emplace_back(*entry);
  }
  return out;
}

// The profile that engines with default settings use for planning, for a given number of ranks.
struct ProfileReport {
  int num_ranks = 1;
  int threads = 1;
  engine::ChosenProfile chosen;
};

std::vector<ProfileReport> report_profiles() {
  std::vector<ProfileReport> out;
  for (const int num_ranks : {1, 2}) {
    const int threads = engine::default_threads_per_rank(num_ranks);
    const auto ops = engine::make_op_sets("cpu", "auto", 1, threads);
    out.push_back(
        {num_ranks, threads,
         engine::choose_profile({.op_set = ops.front()->description(), .threads = threads, .num_ranks = num_ranks})});
  }
  return out;
}

io::Json to_json(const ops::GpuList& list) {
  io::Json gpus = io::Json::array();
  for (const ops::GpuInfo& gpu : list.gpus) {
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

void print(const ops::GpuList& list) {
  if (list.gpus.empty()) return;
  print_output("driver    {}, for CUDA up to {}; the backend was built with CUDA {}\n",
               list.driver.empty() ? "of unknown version" : list.driver, list.driver_cuda, list.cuda);
  for (size_t i = 0; i < list.gpus.size(); ++i) {
    const ops::GpuInfo& gpu = list.gpus[i];
    print_output("gpu {:<5} {}, {:.0f} GB, {} SMs, compute capability {}\n", i, gpu.name, gpu.memory_gb, gpu.num_sms,
                 gpu.compute_capability);
  }
  if (list.gpus.size() == 1) return;
  // Peer access is required for communication between the GPUs of different ranks.
  std::string head;
  for (size_t i = 0; i < list.gpus.size(); ++i) head += fmt::format(" {:>4}", i);
  print_output("peers    {}   (whether a GPU can access the memory of another one)\n", head);
  for (size_t i = 0; i < list.gpus.size(); ++i) {
    std::string row;
    for (size_t j = 0; j < list.gpus.size(); ++j) {
      row += fmt::format(" {:>4}", i == j ? "-" : list.can_read[i][j] ? "yes" : "no");
    }
    print_output("  gpu {:<3}{}\n", i, row);
  }
}

int run(bool json) {
  const CpuFeatures& cpu = cpu_features();
  const auto backends = engine::report_backends();
  const ops::GpuList gpus = engine::report_gpus();
  if (json) {
    io::Json list = io::Json::array();
    for (const auto& b : backends) list.push_back({{"name", b.name}, {"available", b.available}, {"detail", b.detail}});
    io::Json profiles = io::Json::array();
    for (const auto& [num_ranks, threads, chosen] : report_profiles()) {
      profiles.push_back({{"ranks", num_ranks},
                          {"threads", threads},
                          {"profile", chosen.profile.name},
                          {"source", chosen.source},
                          {"fits", chosen.fits()},
                          {"why_not", chosen.note}});
    }
    const io::Json out = {{"version", EPSMOE_VERSION},
                          {"cpu", cpu.brand},
                          {"cores", cpu.usable_cores},
                          {"isa", cpu.isa_list()},
                          {"isa_level", to_string(cpu.isa())},
                          {"memory_gb", machine_memory_gb()},
                          {"l2_bytes", cpu.l2_bytes},
                          {"backends", list},
                          {"profiles", profiles},
                          {"cuda", to_json(gpus)},
                          {"environment", environment()}};
    print_output("{}\n", io::dump_json(out));
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
  print(gpus);
  for (const auto& [num_ranks, threads, chosen] : report_profiles()) {
    print_output("profile   {} rank{} x {} thread{}: {} ({}){}\n", num_ranks, num_ranks == 1 ? "" : "s", threads,
                 threads == 1 ? "" : "s", printable(chosen.profile.name), printable(chosen.source),
                 chosen.fits() ? ", measured here"
                               : ": " + printable(chosen.note, 400) + "; `epsmoe tune` measures this machine");
  }
  for (const std::string& entry : environment()) print_output("env       {}\n", printable(entry));
  return 0;
}

}  // namespace

void add_doctor_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command = *app.add_subcommand("doctor", "Show what this machine can do: instruction sets and backends");
  const auto json = std::make_shared<bool>(false);
  command.add_flag("--json", *json, "Print one JSON object on stdout");
  command.callback([json, &chosen] { chosen.action = [json] { return run(*json); }; });
}

}  // namespace eps::cli
