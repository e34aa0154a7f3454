// Creates backends and transports by name. Only this file's source includes their headers.
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

namespace eps::engine {

// Larger numbers of ranks or threads are assumed to be typing errors: each of them is a thread with its own memory.
inline constexpr int kMaxRanks = 1024;
int max_threads_per_rank();  // four times the usable CPUs, 1024 at most

// Whether ranks can use each other's idle threads. They cannot if they represent separate machines behind an emulated
// link, or if the speed of a single rank is measured.
enum class RankThreadUse : uint8_t { kShared, kSeparate };

// The mode for ranks whose transport is slowed down to `emulate_link` (empty: not slowed down).
RankThreadUse rank_thread_use(const std::string& emulate_link);

// Creates one op set per rank. `device`: "cpu", "cuda" or "reference"; `dtype`: "auto", "f32" or "bf16"; `gpus`: see
// EngineOptions. Ops on the host fail with kInterrupted once `stop` is set.
//
// Errors  kUsage: unknown device or dtype, one that this machine does not support (with the reason), too many ranks or
//         threads, or GPUs that the ranks cannot use
std::vector<std::unique_ptr<ops::OpSet>> make_op_sets(const std::string& device, const std::string& dtype,
                                                      int num_ranks, int threads_per_rank, StopToken stop = {},
                                                      RankThreadUse thread_use = RankThreadUse::kShared,
                                                      const std::vector<int>& gpus = {});

// Creates one communicator per rank. `emulate_link`: empty, or the link whose speed is emulated (comm/emulated_link.h).
// Errors  kUsage: too many ranks, or an emulated link with one rank
std::vector<std::unique_ptr<comm::Communicator>> make_communicators(int num_ranks, std::chrono::milliseconds timeout,
                                                                    const std::string& emulate_link = {},
                                                                    StopToken stop = {});

// The number of threads of a rank unless the user sets it.
int default_threads_per_rank(int num_ranks);

// A copy of one weight [n, k] that is multiplied by oneDNN with `num_threads` threads. The weight is f32 or bf16, and x
// has the same type.
std::unique_ptr<ops::GemmBaseline> make_gemm_baseline(const TensorView& weights, int num_threads);

// NCCL's messages between the GPUs of `num_ranks` ranks, at most `max_bytes` between each two; null with the reason in
// `why_not`. `gpus`: see EngineOptions.
// Errors  kInternal: NCCL cannot connect the GPUs
std::unique_ptr<ops::AllToAllBaseline> make_all_to_all_baseline(int num_ranks, const std::vector<int>& gpus,
                                                                int64_t max_bytes, std::string& why_not);

// A line of `doctor` about one backend: its name, whether it is available on this machine, and details or the reason.
struct BackendReport {
  std::string name;
  bool available;
  std::string detail;
};
std::vector<BackendReport> report_backends();

// The GPUs that ranks could use.
ops::GpuList report_gpus();

}  // namespace eps::engine
