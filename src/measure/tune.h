// Measures a hardware profile (plan/profile.h): times of GEMMs, elementwise ops, messages and hand-overs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"
#include "ops/op_set.h"
#include "plan/profile.h"

namespace eps::measure {

// A weight [n, k].
struct GemmShape {
  int64_t n = 0;
  int64_t k = 0;
  // Bytes, in the compute dtype, of all weights that a model reads between two uses of the same one; 0: more than fit
  // in the caches.
  uint64_t rotation_bytes = 0;
  bool operator==(const GemmShape&) const = default;
};

// The rows of a model's elementwise ops.
struct RowWidths {
  int64_t hidden = 0;
  int64_t inner = 0;  // of an expert
  int top_k = 2;      // rows of a token, which are added up
};

struct TuneOptions {
  std::vector<GemmShape> expert_shapes;  // measured with both kernels; at least one
  std::vector<GemmShape> shared_shapes;  // measured with dense kernels only, because a layer has one of each
  std::vector<RowWidths> widths;         // at least one
  ops::MlaParams attention;
  std::vector<DType> weight_dtypes = {DType::kBF16};  // as weights are stored: f32, bf16 or f16

  // Measures 1, 2, 4 … rows. The curve of a shape ends earlier if a call takes long, because it is linear beyond that.
  int64_t max_rows = 2048;
  int groups = 4;        // per grouped call, if there are enough weights and rows; a typical number of local experts
  bool quick = false;    // every fourth point, fewer samples
  int threads = 1;       // per rank, for measuring memory_gbps
  double memory_gb = 0;  // of one rank

  // Called on rank 0 before each step, with its description and the numbers of completed and of all steps.
  std::function<void(std::string_view step, int done, int total)> on_step = {};
  std::function<bool()> keep_going = {};  // called on every rank
};

// All ranks call this at the same time, each with its own op set and communicator. They also measure at the same time,
// because in an engine the other ranks use the machine as well. Sets everything but `made`.
//
// Returns  the same valid profile on all ranks
// Errors   kAborted on all ranks if keep_going returned false on one
// Cost     25 s for two models, two ranks and two weight types on a 2-core machine, quick 8 s
plan::HardwareProfile measure_profile(ops::OpSet& ops, comm::Communicator& comm, const TuneOptions& options);

// Rounds every measured number to four significant digits.
void round_numbers(plan::HardwareProfile& profile);

// The total number of steps of which on_step is notified.
int count_tune_steps(const TuneOptions& options);

}  // namespace eps::measure
