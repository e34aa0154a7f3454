// The expert GEMMs of one MoE layer on one rank, timed by kernel.
#pragma once

#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "epsmoe/stop.h"
#include "model/model.h"
#include "moe/gemm_kind.h"

namespace eps::measure {

class ExpertGemms {
 public:
  // Allocates memory for `rows` rows over all experts, with normally distributed inputs. ops and layer outlive the
  // object.
  //
  // Errors  kInterrupted if `stop` is requested while the inputs are generated
  ExpertGemms(ops::OpSet& ops, const model::LayerWeights& layer, int64_t hidden, int64_t inner, int64_t rows,
              uint64_t seed, StopToken stop = {});

  // Times of both projections in µs, which run one after the other as in a layer. On a device the first one includes
  // silu·mul, because the grouped kernels there fuse it into the GEMM.
  //
  // Shapes  rows [num_experts], whose sum is at most the `rows` of the constructor
  std::pair<double, double> time(const std::vector<int64_t>& rows, moe::GemmKind kind);

  // Time in µs of both projections as one call per expert, without silu·mul.
  double time_calls_alone(const std::vector<int64_t>& rows);

 private:
  struct Tasks {
    std::vector<ops::LinearTask> up, down;
    int64_t num_rows = 0;
  };
  Tasks make_tasks(const std::vector<int64_t>& rows) const;
  void run(std::span<const ops::LinearTask> tasks, moe::GemmKind kind);
  void run_up(const Tasks& tasks, moe::GemmKind kind);
  // Time in µs of one call; on a device the mean of as many calls as take two milliseconds, so that the time for
  // waiting is negligible.
  double time_us(const std::function<void()>& call) const;

  ops::OpSet& ops_;
  const model::LayerWeights& layer_;
  Buffer x_memory_, gate_up_memory_, act_memory_, out_memory_;
  MutableTensorView x_, gate_up_, act_, out_;  // [rows, …]
};

}  // namespace eps::measure
