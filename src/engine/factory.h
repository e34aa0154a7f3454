// Makes concrete backends and transports from names. The only place that includes them.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "epsmoe/stop.h"
#include "ops/cuda_module.h"
#include "ops/gemm_baseline.h"
#include "ops/op_set.h"

namespace eps {

// More ranks or threads than these are slips of the hand: each is a thread with memory of its own.
inline constexpr int kMaxRanks = 1024;
int max_threads_per_rank();  // four times the usable CPUs, 1024 at most

// Whether ranks lend each other the threads that they do not use. Not where ranks stand for machines of their own,
// behind an emulated link, nor where a rank is measured by itself.
enum class RankThreadUse : uint8_t { kShared, kSeparate };

// Of ranks whose transport is slowed down to `emulate_link` (empty: not at all).
RankThreadUse rank_thread_use(const std::string& emulate_link);

// One op set per rank. `device`: "cpu", "cuda" or "reference"; `dtype`: "auto", "f32" or "bf16"; `gpus`: see
// EngineOptions. Ops on the host end with kInterrupted when `stop` asks for it.
//
// Errors  kUsage: unknown device or dtype, one that this machine cannot do (and why), too many ranks or threads, or
//         GPUs that ranks cannot use
std::vector<std::unique_ptr<OpSet>> make_op_sets(const std::string& device, const std::string& dtype, int num_ranks,
                                                 int threads_per_rank, StopToken stop = {},
                                                 RankThreadUse thread_use = RankThreadUse::kShared,
                                                 const std::vector<int>& gpus = {});

// Errors  kUsage: too many ranks; an emulated link for one
// `emulate_link`: empty, or a link to slow the transport down to (comm/emulated_link.h).
std::vector<std::unique_ptr<Communicator>> make_communicators(int num_ranks, std::chrono::milliseconds timeout,
                                                              const std::string& emulate_link = {},
                                                              StopToken stop = {});

// Threads a rank gets when the user named none.
int default_threads_per_rank(int num_ranks);

// One weight [n, k], f32 or bf16, which is also the type of x, as oneDNN multiplies it; copied. `num_threads` share
// each product.
std::unique_ptr<GemmBaseline> make_gemm_baseline(const TensorView& weights, int num_threads);

// What `doctor` prints about backends: a name, whether it works here, and why or why not.
struct BackendReport {
  std::string name;
  bool available;
  std::string detail;
};
std::vector<BackendReport> report_backends();

// What ranks on GPUs would find.
GpuList report_gpus();

}  // namespace eps
