#include "measure/layer_ranks.h"

#include <algorithm>
#include <limits>

#include "base/clock.h"
#include "base/error.h"
#include "plan/op_table.h"

namespace eps::measure {
namespace {

bool is_gemm(plan::OpKind kind) {
  return kind == plan::OpKind::kGateUp || kind == plan::OpKind::kDown || kind == plan::OpKind::kShared;
}

}  // namespace

void add_timeline(const std::vector<device::TimelineEvent>& events, LayerTimes& times) {
  struct Span {
    int64_t begin = std::numeric_limits<int64_t>::max();
    int64_t end = std::numeric_limits<int64_t>::min();
    void add(const device::TimelineEvent& event) {
      begin = std::min(begin, event.begin_ns);
      end = std::max(end, event.end_ns);
    }
    int64_t length() const { return std::max<int64_t>(0, end - begin); }
  };
  std::array<int64_t, plan::kNumOpKinds> mine = {};
  std::array<Span, plan::kNumOpKinds> spans;
  Span all;
  for (const device::TimelineEvent& event : events) {
    all.add(event);
    for (size_t kind = 0; kind < mine.size(); ++kind) {
      if (event.name != plan::kOpTable[kind].name) continue;
      mine[kind] += event.end_ns - event.begin_ns;
      spans[kind].add(event);
    }
  }
  if (!events.empty()) times.span_ns = std::max(times.span_ns, all.length());
  int64_t gemm_ns = 0;
  for (size_t kind = 0; kind < mine.size(); ++kind) {
    if (is_gemm(static_cast<plan::OpKind>(kind))) gemm_ns += mine[kind];
    times.op_ns[kind] = std::max(times.op_ns[kind], mine[kind]);
    times.least_op_ns[kind] = times.num_timelines == 0 ? mine[kind] : std::min(times.least_op_ns[kind], mine[kind]);
    if (mine[kind] > 0) times.op_span_ns[kind] = std::max(times.op_span_ns[kind], spans[kind].length());
  }
  ++times.num_timelines;
  times.gemm_ns = std::max(times.gemm_ns, gemm_ns);
  times.overlap += exec::measure_overlap(events);
}

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

LayerTimes LayerRanks::run(const plan::Plan& plan, std::span<const moe::Routing> routing, TensorView x,
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
  LayerTimes times;
  int64_t begin = spans.front().first;
  int64_t end = spans.front().second;
  for (size_t r = 0; r < spans.size(); ++r) {
    begin = std::min(begin, spans[r].first);
    end = std::max(end, spans[r].second);
    add_timeline(layers_[r]->lanes().timeline(), times);
  }
  times.layer_ns = end - begin;
  return times;
}

}  // namespace eps::measure
