// Ranks of this process that repeatedly run one MoE layer by its plan, on the host.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/rank_group.h"
#include "exec/host_layer.h"
#include "exec/moe_executor.h"

namespace eps::measure {

// Benchmarks of a single layer support several ranks only on the CPU.  Errors  kUsage, naming `command`
void require_host_ranks(const std::string& command, const std::string& device, int num_ranks);

// The times of one layer.
struct LayerTimes {
  int64_t layer_ns = 0;        // from the first rank's start to the last rank's end
  int64_t gemm_ns = 0;         // ops gate_up, down and shared, on the rank on which they took longest
  exec::OverlapStats overlap;  // of all ranks
  // The time of each kind of op, over all stages, on the rank on which it took longest.
  std::array<int64_t, plan::kNumOpKinds> op_ns = {};
  // The same on the rank on which it took the shortest, without waiting for a rank that is late.
  std::array<int64_t, plan::kNumOpKinds> least_op_ns = {};
  int num_timelines = 0;
  // The time from the start of the first such op to the end of the last one, likewise, and that of all ops.
  std::array<int64_t, plan::kNumOpKinds> op_span_ns = {};
  int64_t span_ns = 0;
};
inline double us_of(const std::array<int64_t, plan::kNumOpKinds>& ns, plan::OpKind kind) {
  return static_cast<double>(ns[static_cast<size_t>(kind)]) * 1e-3;
}
// Adds the ops of one rank.
void add_timeline(const std::vector<device::TimelineEvent>& events, LayerTimes& times);

class LayerRanks {
 public:
  // Takes one op set and one communicator per rank; the op sets use host memory. `layer` outlives the object.
  LayerRanks(const model::LayerWeights& layer, moe::ExpertPlacement placement,
             std::vector<std::unique_ptr<ops::OpSet>> ops, std::vector<std::unique_ptr<comm::Communicator>> comms);

  // Shapes  routing [num_ranks]; x, out [num_ranks * tokens, H] f32, the same number of tokens on every rank
  LayerTimes run(const plan::Plan& plan, std::span<const moe::Routing> routing, TensorView x, MutableTensorView out);

 private:
  moe::ExpertPlacement placement_;
  std::vector<std::unique_ptr<ops::OpSet>> ops_;
  std::vector<std::unique_ptr<comm::Communicator>> comms_;
  std::vector<ops::MoeWeights> weights_;
  std::vector<std::unique_ptr<exec::HostLayer>> layers_;
  engine::RankThreads threads_;
};

}  // namespace eps::measure
