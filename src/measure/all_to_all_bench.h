// `epsmoe bench a2a`: times the messages of a layer between GPUs, without its GEMMs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "epsmoe/engine.h"

namespace eps::measure {

struct AllToAllOptions {
  EngineOptions engine;         // device, ep, gpus, comm_timeout_ms, stop
  int64_t row_bytes = 10240;    // a multiple of 16
  int64_t min_bytes = 160'000;  // of a message: what each rank sends to all others together
  int64_t max_bytes = 160'000'000;
  double factor = 4;  // from one size to the next
  int copies = 1;     // experts of each token on the rank that it is sent to
  std::vector<int> sms = {4, 8, 12, 16, 24};
  int repetitions = 9;
};

// One kind of message of one size.
struct AllToAllPoint {
  std::string op;     // "dispatch", "combine"; "send" for the baseline, which moves contiguous bytes
  std::string way;    // "pull", "push"; "nccl"
  int sms = 0;        // 0: the baseline's own choice
  int64_t bytes = 0;  // that each rank sends; it receives as many at the same time
  int64_t rows = 0;
  std::vector<double> us;  // by repetition, on the rank on which it took longest
  double gbps() const;     // per rank and direction, of the median
};

struct AllToAllResult {
  std::string op_set;
  std::string baseline;  // "NCCL 2.28.9", or why there is none
  std::vector<AllToAllPoint> points;
};

// Errors  kUsage: an option out of range, naming the field, or a device whose ranks do not exchange rows directly
AllToAllResult run_all_to_all_bench(const AllToAllOptions& options, const std::function<void(std::string_view)>& note,
                                    const std::function<bool()>& keep_going);

}  // namespace eps::measure
