// The expert GEMMs of one MoE layer on one rank, timed by kernel.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "epsmoe/stop.h"
#include "model/model.h"
#include "moe/gemm_kind.h"

namespace eps {

class ExpertGemms {
 public:
  // Memory for `rows` rows of all experts together, filled with normal numbers. ops and layer outlive the object.
  // Errors  kInterrupted when `stop` asks for it during the filling
  ExpertGemms(OpSet& ops, const LayerWeights& layer, int64_t hidden, int64_t inner, int64_t rows, uint64_t seed,
              StopToken stop = {});

  // Both projections, one after the other as in a layer: µs of each. On a device the first one includes silu·mul, which
  // grouped kernels there do on the way.
  //
  // Shapes  rows [num_experts], no more in all than there is memory for
  std::pair<double, double> time(const std::vector<int64_t>& rows, GemmKind kind);

  // µs of both projections as one call per expert, and nothing else.
  double time_calls_alone(const std::vector<int64_t>& rows);

 private:
  struct Tasks {
    std::vector<LinearTask> up, down;
    int64_t num_rows = 0;
  };
  Tasks make_tasks(const std::vector<int64_t>& rows) const;
  void run(std::span<const LinearTask> tasks, GemmKind kind);
  void run_up(const Tasks& tasks, GemmKind kind);
  // A call, or on a device the mean of as many as take two milliseconds, so that waiting for it does not count.
  double time_us(const std::function<void()>& call) const;

  OpSet& ops_;
  const LayerWeights& layer_;
  Buffer x_memory_, gate_up_memory_, act_memory_, out_memory_;
  MutableTensorView x_, gate_up_, act_, out_;  // [rows, …]
};

}  // namespace eps
