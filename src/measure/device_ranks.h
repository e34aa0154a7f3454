// Ranks of this process that repeatedly run one MoE layer on devices that exchange rows directly (ops/peer_layer.h).
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/rank_group.h"
#include "exec/moe_executor.h"
#include "measure/layer_ranks.h"
#include "model/model.h"
#include "ops/peer_layer.h"

namespace eps::measure {

struct DeviceRanksOptions {
  plan::MoeShape shape;
  moe::ExpertPlacement placement;  // of the whole system, of which only the first ranks may exist
  uint64_t seed = 1;               // of the rows
};

class DeviceRanks {
 public:
  using LoadWeights = std::function<model::LayerWeights(const ops::OpSet&, model::RankShare)>;

  // Takes one op set and one communicator per existing rank; a communicator has as many ranks as the placement.
  // `load` is called on one rank after the other.
  //
  // Shapes  routing [num_ranks]: only that of existing ranks is used; every rank has the same number of tokens
  DeviceRanks(const DeviceRanksOptions& options, std::vector<std::unique_ptr<ops::OpSet>> ops,
              std::vector<std::unique_ptr<comm::Communicator>> comms, std::span<const moe::Routing> routing,
              const LoadWeights& load);
  ~DeviceRanks();
  DeviceRanks(const DeviceRanks&) = delete;
  DeviceRanks& operator=(const DeviceRanks&) = delete;

  // Gives the ranks other tokens, as in the constructor.
  void route(std::span<const moe::Routing> routing);

  // The problem that all ranks have counted.
  const plan::MoeProblem& problem() const { return problem_; }

  // As ops::PeerLayer.
  int64_t most_tokens_without_host() const { return ranks_.front().peer->most_tokens_without_host(); }

  // Runs the layer several times in a row, so that the devices do not idle, and then once more with the times of its
  // ops. layer_ns is the mean of the former; the other times are those of the latter.
  LayerTimes run(const plan::Plan& plan);
  // Only the latter. layer_ns is the time of that one layer.
  LayerTimes run_timed(const plan::Plan& plan);

 private:
  struct Rank {
    std::unique_ptr<ops::OpSet> ops;
    std::unique_ptr<comm::Communicator> comm;
    model::LayerWeights layer;
    ops::MoeWeights weights;
    std::unique_ptr<ops::PeerLayer> peer;
    std::unique_ptr<exec::MoeExecutor> executor;
    Buffer x_memory, idx_memory, weight_memory, out_memory;
    TensorView x, idx, weight;
    MutableTensorView out;
  };

  void prepare(Rank& rank, const LoadWeights& load);
  void set_tokens(Rank& rank, const moe::Routing& routing);
  ops::PeerLoad exchange(Rank& rank);
  void run_layer(Rank& rank, const plan::Plan& plan);
  void on_ranks(const std::function<void(Rank&, int)>& body);
  int64_t time_layers(const plan::Plan& plan, int count);

  DeviceRanksOptions options_;
  std::mutex loading_;
  std::vector<int64_t> tokens_per_rank_;
  plan::MoeProblem problem_;
  std::vector<Rank> ranks_;
  engine::RankThreads threads_;
};

}  // namespace eps::measure
