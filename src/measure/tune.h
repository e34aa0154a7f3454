// Measures what the hardware can do (plan/profile.h) by doing it: GEMMs, elementwise ops, messages, hand-overs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"
#include "ops/op_set.h"
#include "plan/profile.h"

namespace eps {

// A weight [n, k].
struct GemmShape {
  int64_t n = 0;
  int64_t k = 0;
  // Bytes of all weights that a model reads between two uses of the same one, as computed with; 0: more than caches
  // hold.
  uint64_t rotation_bytes = 0;
  bool operator==(const GemmShape&) const = default;
};

// Row widths that a model's elementwise ops work on.
struct RowWidths {
  int64_t hidden = 0;
  int64_t inner = 0;  // of an expert
};

struct TuneOptions {
  std::vector<GemmShape> expert_shapes;  // measured in both kinds; at least one
  std::vector<GemmShape> shared_shapes;  // dense alone: a layer has one of each
  std::vector<RowWidths> widths;         // at least one
  MlaParams attention;
  std::vector<DType> weight_dtypes = {DType::kBF16};  // as weights are stored: f32, bf16 or f16

  // 1, 2, 4 … rows; a shape's curve ends early where a call takes long, because from there on it is straight.
  int64_t max_rows = 2048;
  int groups = 4;        // per grouped call, where as many weights and rows are at hand: as a layer has that runs there
  bool quick = false;    // every fourth point, fewer samples
  int threads = 1;       // of each rank, for reading memory
  double memory_gb = 0;  // of one rank: known to the caller

  // Called on rank 0 before each step, with what it does and how many steps there are.
  std::function<void(std::string_view step, int done, int total)> on_step = {};
  std::function<bool()> keep_going = {};  // asked on every rank
};

// All ranks call it at the same time, each with its own op set and communicator, and measure the same things at once:
// a rank gets what is left when the others work, too. Name, origin and making are set, all but `made`.
//
// Returns  the same profile on every rank, without faults
// Errors   kAborted on all ranks when keep_going said no on one
// Cost     25 s for two models, two ranks and two weight types on a 2-core machine, quick 8 s
HardwareProfile measure_profile(OpSet& ops, Communicator& comm, const TuneOptions& options);

// Steps that on_step will count.
int count_tune_steps(const TuneOptions& options);

}  // namespace eps
