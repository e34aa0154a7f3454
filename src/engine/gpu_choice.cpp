#include "engine/gpu_choice.h"

#include <fmt/ranges.h>

#include <numeric>

#include "base/error.h"

namespace eps::engine {
namespace {

std::string list(const std::vector<int>& gpus) { return fmt::format("{}", fmt::join(gpus, ",")); }

std::string count(size_t n) { return fmt::format("{} GPU{}", n, n == 1 ? "" : "s"); }

void require_existing(const ops::GpuList& available, const std::vector<int>& gpus) {
  const auto most = static_cast<int>(available.gpus.size()) - 1;
  for (const int gpu : gpus) {
    if (gpu >= 0 && gpu <= most) continue;
    fail(ErrorKind::kUsage, "gpus",
         {.what = "no such GPU",
          .got = std::to_string(gpu),
          .wanted = most == 0 ? "0" : fmt::format("0 to {}", most),
          .hint = "`epsmoe doctor`, which lists them"});
  }
}

void require_peers(const ops::GpuList& available, const std::vector<int>& gpus) {
  for (const int a : gpus) {
    for (const int b : gpus) {
      if (a == b || available.can_read[static_cast<size_t>(a)][static_cast<size_t>(b)]) continue;
      fail(ErrorKind::kUsage, "gpus",
           {.what = fmt::format("GPU {} cannot read the memory of GPU {}, which the ranks require", a, b),
            .got = list(gpus),
            .wanted = "GPUs with peer access to each other (`epsmoe doctor` shows it)",
            .hint = fmt::format("`gpus` {}, or `ep` 1", list(std::vector<int>(gpus.size(), a)))});
    }
  }
}

}  // namespace

std::vector<int> choose_gpus(const ops::GpuList& available, int num_ranks, const std::vector<int>& requested) {
  const auto ranks = static_cast<size_t>(num_ranks);
  if (num_ranks > available.most_ranks) {
    fail(ErrorKind::kUsage, "ep",
         {.what = "more ranks than the kernels between GPUs support",
          .got = std::to_string(num_ranks),
          .wanted = fmt::format("at most {}", available.most_ranks),
          .hint = ""});
  }
  if (requested.empty() && available.gpus.size() < ranks) {
    fail(ErrorKind::kUsage, "ep",
         {.what = "fewer GPUs than ranks",
          .got = count(available.gpus.size()),
          .wanted = std::to_string(num_ranks),
          .hint = fmt::format("`gpus` {}, which puts all ranks on one GPU", list(std::vector<int>(ranks, 0)))});
  }
  if (!requested.empty() && requested.size() != ranks) {
    fail(ErrorKind::kUsage, "gpus",
         {.what = "must name one GPU for each rank",
          .got = list(requested),
          .wanted = fmt::format("{} number{}", num_ranks, num_ranks == 1 ? "" : "s"),
          .hint = fmt::format("`ep` {}", requested.size())});
  }
  std::vector<int> gpus = requested;
  if (gpus.empty()) {
    gpus.resize(ranks);
    std::iota(gpus.begin(), gpus.end(), 0);
  }
  require_existing(available, gpus);
  require_peers(available, gpus);
  return gpus;
}

}  // namespace eps::engine
