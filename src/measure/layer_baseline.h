// The baseline of `bench layer`: calls the layer's GEMMs one by one with oneDNN, and checks the output of our arm.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "arch/family.h"
#include "epsmoe/stop.h"
#include "model/weight_source.h"
#include "moe/routing.h"
#include "ops/gemm_baseline.h"

namespace eps::measure {

// The largest difference between two computations of a layer.
struct OutputCheck {
  double worst = 0;  // largest |ours - baseline| / tolerance; an error if it is above 1 or not a number
  int64_t token = 0;
  int64_t column = 0;
  double got = 0;
  double wanted = 0;
  double tolerance = 0;
  bool ok() const { return worst <= 1.0; }
};

// The largest row norm and the largest element of a weight.
struct RowSizes {
  double norm = 0;
  double element = 0;  // in absolute value
};

class LayerBaseline {
 public:
  // Packs the weights of all experts from `source` and releases each of them there. `compute`: f32 or bf16.
  //
  // Errors  kInterrupted, as for all methods that compute, if `stop` is requested
  LayerBaseline(const arch::ModelSpec& spec, const arch::Family& family, int layer, model::WeightSource& source,
                DType compute, int num_threads, StopToken stop = {});

  // Computes the whole layer once, with products by oneDNN and sums over experts in double. Keeps the inputs of
  // `run_gemms`, and the output with its tolerance for `check`.
  //
  // Shapes  x [num_ranks * tokens, H] f32; routing [num_ranks]
  void prepare(TensorView x, std::span<const moe::Routing> routing);

  // Runs only the GEMMs of the layer again: gate_up and down of each expert, then of the shared experts. Each is a
  // single call, unless that call would delay a request to stop for too long.
  void run_gemms();

  // Compares another computation of the same layer with that of `prepare`, element by element.
  // Shapes  ours [num_ranks * tokens, H] f32
  OutputCheck check(TensorView ours) const;

  // Describes the kernel that oneDNN uses for the expert with the most rows.
  std::string implementation() const;

 private:
  // An expert, or the shared experts, and its rows: row i belongs to tokens[i] and has weight[i].
  struct Mlp {
    std::unique_ptr<ops::GemmBaseline> gate_up;  // [2I, H]
    std::unique_ptr<ops::GemmBaseline> down;     // [H, I]
    RowSizes gate_up_rows;
    RowSizes down_rows;
    int64_t inner = 0;
    std::vector<int64_t> tokens;
    std::vector<float> weight;
    Buffer x, gate_up_out, act, out;
  };

  Mlp make_mlp(const arch::MlpNames& names, int64_t inner, model::WeightSource& source);
  void assign_rows(std::span<const moe::Routing> routing);
  void run_mlp(Mlp& mlp, TensorView x);
  int64_t rows_of_call(int64_t rows, int64_t columns) const;
  void multiply_gate_up(const Mlp& mlp) const;
  void multiply_down(const Mlp& mlp) const;
  double* outputs() const { return reinterpret_cast<double*>(out_.data()); }
  double activate(Mlp& mlp, int64_t row, double x_norm) const;

  int64_t hidden_;
  int64_t shared_inner_;
  DType compute_;
  int num_threads_;
  StopToken stop_;
  std::vector<Mlp> mlps_;  // [num_experts], then the shared experts if there are any
  Buffer out_;             // [num_tokens, H] f64
  int64_t num_outputs_ = 0;
  std::vector<double> tolerance_;  // [num_tokens]
};

}  // namespace eps::measure
