#include "measure/device_ranks.h"

#include <algorithm>
#include <mutex>

#include "base/clock.h"
#include "base/error.h"
#include "measure/fill.h"

namespace eps::measure {
namespace {

// Layers in a row take at least this long, so that the time in which the last ones drain does not matter.
constexpr int64_t kRowNs = 6'000'000;
constexpr int kMostInRow = 16;

}  // namespace

DeviceRanks::DeviceRanks(const DeviceRanksOptions& options, std::vector<std::unique_ptr<ops::OpSet>> ops,
                         std::vector<std::unique_ptr<comm::Communicator>> comms, std::span<const moe::Routing> routing,
                         const LoadWeights& load)
    : options_(options), ranks_(ops.size()), threads_(static_cast<int>(ops.size())) {
  EPS_CHECK_EQ(ops.size(), comms.size());
  for (size_t r = 0; r < ranks_.size(); ++r) {
    ranks_[r].ops = std::move(ops[r]);
    ranks_[r].comm = std::move(comms[r]);
    EPS_CHECK_EQ(ranks_[r].comm->size(), options.placement.num_ranks);
  }
  on_ranks([&](Rank& rank, int) { prepare(rank, load); });
  route(routing);
}

void DeviceRanks::route(std::span<const moe::Routing> routing) {
  EPS_CHECK_GE(routing.size(), ranks_.size());
  tokens_per_rank_.assign(static_cast<size_t>(options_.placement.num_ranks), routing.front().num_tokens);
  std::vector<ops::PeerLoad> loads(ranks_.size());
  // In two steps, because no rank may free memory that another one still reads.
  on_ranks([](Rank& rank, int) { rank.peer->wait(); });
  on_ranks([&](Rank& rank, int r) {
    set_tokens(rank, routing[static_cast<size_t>(r)]);
    loads[static_cast<size_t>(r)] = exchange(rank);
  });
  plan::MoeShape shape = options_.shape;
  shape.top_k = routing.front().top_k;
  problem_ = plan::make_problem(shape, options_.placement, std::move(loads.front().rows),
                                std::move(loads.front().summary), tokens_per_rank_,
                                {ranks_.front().ops->compute_dtype(), ranks_.front().ops->activation_dtype()});
}

DeviceRanks::~DeviceRanks() {
  // No rank frees memory that another one still uses.
  for (Rank& rank : ranks_) {
    if (rank.peer) rank.peer->wait();
  }
}

void DeviceRanks::on_ranks(const std::function<void(Rank&, int)>& body) {
  threads_.run([&](int r) { body(ranks_[static_cast<size_t>(r)], r); },
               [this](int r, const char* what) { ranks_[static_cast<size_t>(r)].comm->abort(what); });
}

void DeviceRanks::prepare(Rank& rank, const LoadWeights& load) {
  ops::OpSet& ops = *rank.ops;
  ops.bind_thread();
  {
    // One after the other: ranks share the source, and each releases weights that the others load as well.
    const std::lock_guard lock(loading_);
    rank.layer = load(ops, {rank.comm->rank(), options_.placement.num_ranks});
    ops.wait();  // the weights' memory in the source may be reused now
  }
  rank.weights = model::rank_weights(rank.layer, options_.placement, rank.comm->rank());
  for (Buffer* buffer : {&rank.x_memory, &rank.idx_memory, &rank.weight_memory, &rank.out_memory}) {
    *buffer = Buffer(ops.memory());
  }
  rank.peer = ops.make_peer_layer(*rank.comm);
  EPS_CHECK(rank.peer != nullptr, "{} cannot exchange rows with other ranks", ops.description());
  rank.executor = std::make_unique<exec::MoeExecutor>(*rank.peer, *rank.comm);
}

void DeviceRanks::set_tokens(Rank& rank, const moe::Routing& routing) {
  const ops::OpSet& ops = *rank.ops;
  const int64_t tokens = routing.num_tokens;
  const MutableTensorView x = rank.x_memory.view(ops.compute_dtype(), {tokens, options_.shape.hidden});
  fill_normal(ops, x, options_.seed + static_cast<uint64_t>(rank.comm->rank()));
  rank.out = rank.out_memory.view(ops.activation_dtype(), {tokens, options_.shape.hidden});
  const MutableTensorView idx = rank.idx_memory.view(DType::kI32, {tokens, routing.top_k});
  const MutableTensorView weight = rank.weight_memory.view(DType::kF32, {tokens, routing.top_k});
  ops.upload(routing.expert_idx.data(), idx);
  ops.upload(routing.weight.data(), weight);
  rank.x = x;
  rank.idx = idx;
  rank.weight = weight;
  rank.peer->begin_step(tokens_per_rank_, routing.top_k, options_.shape.hidden);
}

ops::PeerLoad DeviceRanks::exchange(Rank& rank) {
  rank.peer->set_routing(options_.placement.num_experts, rank.idx, rank.weight);
  return rank.peer->exchange(rank.x);
}

void DeviceRanks::run_layer(Rank& rank, const plan::Plan& plan) {
  if (plan.transport == plan::Transport::kFlags) {
    rank.peer->set_routing(options_.placement.num_experts, rank.idx, rank.weight);
    rank.peer->set_rows(rank.x);
  } else {
    exchange(rank);
  }
  rank.executor->run(plan, rank.weights, rank.out);
}

int64_t DeviceRanks::time_layers(const plan::Plan& plan, int count) {
  std::vector<std::pair<int64_t, int64_t>> spans(ranks_.size());
  on_ranks([&](Rank& rank, int r) {
    auto& [begin, end] = spans[static_cast<size_t>(r)];
    rank.comm->barrier();  // so that no rank's time includes waking the threads
    begin = now_ns();
    for (int i = 0; i < count; ++i) run_layer(rank, plan);
    rank.peer->wait();
    end = now_ns();
    rank.peer->check();
  });
  const auto first = std::ranges::min_element(spans, {}, &std::pair<int64_t, int64_t>::first)->first;
  return std::ranges::max_element(spans, {}, &std::pair<int64_t, int64_t>::second)->second - first;
}

LayerTimes DeviceRanks::run(const plan::Plan& plan) {
  const int64_t once = time_layers(plan, 1);
  const auto count = static_cast<int>(std::clamp<int64_t>(kRowNs / std::max<int64_t>(1, once), 2, kMostInRow));
  // The first layer's start and the last one's end are not overlapped by other layers: their time cancels out.
  const int64_t shorter = time_layers(plan, count);
  const int64_t longer = time_layers(plan, 2 * count);
  LayerTimes times = run_timed(plan);
  times.layer_ns = (longer - shorter) / count;
  return times;
}

LayerTimes DeviceRanks::run_timed(const plan::Plan& plan) {
  LayerTimes times;
  on_ranks([&](Rank& rank, int) { rank.peer->record_times(true); });
  times.layer_ns = time_layers(plan, 1);
  for (Rank& rank : ranks_) add_timeline(rank.peer->lanes().timeline(), times);
  on_ranks([&](Rank& rank, int) { rank.peer->record_times(false); });
  return times;
}

}  // namespace eps::measure
