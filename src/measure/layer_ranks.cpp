#include "measure/layer_ranks.h"

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"

namespace eps::measure {
namespace {

bool is_gemm(const device::TimelineEvent& event) {
  return event.name == plan::to_string(plan::OpKind::kGateUp) || event.name == plan::to_string(plan::OpKind::kDown) ||
         event.name == plan::to_string(plan::OpKind::kShared);
}

}  // namespace

void require_host_ranks(const std::string& command, const std::string& device, int num_ranks) {
  if (device != "cuda" || num_ranks == 1) return;
  fail(ErrorKind::kUsage, "ep",
       {.what = command + " runs one rank on a GPU",
        .got = std::to_string(num_ranks),
        .wanted = "1",
        .hint = "`device` cpu; `epsmoe generate` and `epsmoe bench latency` run several GPUs"});
}

LayerRanks::LayerRanks(const model::LayerWeights& layer, moe::ExpertPlacement placement,
                       std::vector<std::unique_ptr<ops::OpSet>> ops,
                       std::vector<std::unique_ptr<comm::Communicator>> comms)
    : placement_(placement), ops_(std::move(ops)), comms_(std::move(comms)), threads_(placement.num_ranks) {
  for (int rank = 0; rank < placement_.num_ranks; ++rank) {
    const auto r = static_cast<size_t>(rank);
    weights_.push_back(model::rank_weights(layer, placement_, rank));
    EPS_CHECK(ops_[r]->memory().on_host(), "{} does not compute in host memory", ops_[r]->description());
    layers_.push_back(std::make_unique<exec::HostLayer>(*ops_[r], *comms_[r]));
  }
}

LayerRanks::Times LayerRanks::run(const plan::Plan& plan, std::span<const moe::Routing> routing, TensorView x,
                                  MutableTensorView out) {
  const int64_t tokens = x.dim(0) / placement_.num_ranks;
  std::vector<std::pair<int64_t, int64_t>> spans(layers_.size());
  threads_.run(
      [&](int rank) {
        const auto r = static_cast<size_t>(rank);
        const ComputingThread computing(ops_[r]->thread_pool());
        comms_[r]->barrier();  // so that no rank's time includes waking the threads
        spans[r].first = now_ns();
        layers_[r]->set_routing(placement_, routing, x.rows(rank * tokens, (rank + 1) * tokens));
        exec::MoeExecutor(*layers_[r], *comms_[r]).run(plan, weights_[r], out.rows(rank * tokens, (rank + 1) * tokens));
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
    for (const device::TimelineEvent& event : layers_[r]->lanes().timeline()) {
      if (is_gemm(event)) gemm_ns += event.end_ns - event.begin_ns;
    }
    times.gemm_ns = std::max(times.gemm_ns, gemm_ns);
    times.overlap += exec::measure_overlap(layers_[r]->lanes().timeline());
  }
  times.layer_ns = end - begin;
  return times;
}

}  // namespace eps::measure
