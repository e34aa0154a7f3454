#include "measure/layer_ranks.h"

#include <algorithm>

#include "base/clock.h"

namespace eps {
namespace {

bool is_gemm(const TimelineEvent& event) {
  return event.name == to_string(OpKind::kGateUp) || event.name == to_string(OpKind::kDown) ||
         event.name == to_string(OpKind::kShared);
}

}  // namespace

LayerRanks::LayerRanks(const LayerWeights& layer, ExpertPlacement placement, std::vector<std::unique_ptr<OpSet>> ops,
                       std::vector<std::unique_ptr<Communicator>> comms)
    : placement_(placement), ops_(std::move(ops)), comms_(std::move(comms)), threads_(placement.num_ranks) {
  for (int rank = 0; rank < placement_.num_ranks; ++rank) {
    const auto r = static_cast<size_t>(rank);
    weights_.push_back(rank_weights(layer, placement_, rank));
    executors_.push_back(std::make_unique<MoeExecutor>(*ops_[r], *comms_[r]));
  }
}

LayerRanks::Times LayerRanks::run(const Plan& plan, std::span<const Routing> routing, TensorView x,
                                  MutableTensorView out) {
  const int64_t tokens = x.dim(0) / placement_.num_ranks;
  std::vector<std::pair<int64_t, int64_t>> spans(executors_.size());
  threads_.run(
      [&](int rank) {
        const auto r = static_cast<size_t>(rank);
        comms_[r]->barrier();  // so that waking the threads is nobody's time
        spans[r].first = now_ns();
        executors_[r]->run(plan, placement_, routing, weights_[r], x.rows(rank * tokens, (rank + 1) * tokens),
                           out.rows(rank * tokens, (rank + 1) * tokens));
        spans[r].second = now_ns();
      },
      [this](int rank, const char* what) { comms_[static_cast<size_t>(rank)]->abort(what); });
  Times times;
  int64_t begin = spans.front().first;
  int64_t end = spans.front().second;
  for (size_t r = 0; r < spans.size(); ++r) {
    begin = std::min(begin, spans[r].first);
    end = std::max(end, spans[r].second);
    int64_t gemm_ns = 0;
    for (const TimelineEvent& event : executors_[r]->timeline()) {
      if (is_gemm(event)) gemm_ns += event.end_ns - event.begin_ns;
    }
    times.gemm_ns = std::max(times.gemm_ns, gemm_ns);
    times.overlap += measure_overlap(executors_[r]->timeline());
  }
  times.layer_ns = end - begin;
  return times;
}

}  // namespace eps
