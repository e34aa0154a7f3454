// The other arm of `bench layer`: the layer's GEMMs called one by one on oneDNN, and what our arm's output must be.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "epsmoe/stop.h"
#include "model/family.h"
#include "model/weight_source.h"
#include "moe/routing.h"
#include "ops/gemm_baseline.h"

namespace eps {

// How far two computations of a layer are from each other.
struct OutputCheck {
  double worst = 0;  // largest |ours - baseline| / tolerance; above 1 (or not a number): wrong
  int64_t token = 0;
  int64_t column = 0;
  double got = 0;
  double wanted = 0;
  double tolerance = 0;
  bool ok() const { return worst <= 1.0; }
};

// The largest among a weight's rows.
struct RowSizes {
  double norm = 0;
  double element = 0;  // in absolute value
};

class LayerBaseline {
 public:
  // Packs the weights of all experts from `source`, releasing each as it goes. `compute`: f32 or bf16.
  // Errors  kInterrupted, as of all methods that compute, when `stop` asks for it
  LayerBaseline(const ModelSpec& spec, const Family& family, int layer, WeightSource& source, DType compute,
                int num_threads, StopToken stop = {});

  // Computes the whole layer once: products on oneDNN, everything else in double. Keeps what `run_gemms` reads, and
  // the output with its tolerance for `check`.
  //
  // Shapes  x [num_ranks * tokens, H] f32; routing [num_ranks]
  void prepare(TensorView x, std::span<const Routing> routing);

  // Every GEMM of the layer once more, nothing else: gate_up and down of each expert, then of the shared experts. Each
  // is one call, unless it would take so long that a request to stop came too late.
  void run_gemms();

  // Compares another computation of the same layer with `prepare`'s, element by element.
  // Shapes  ours [num_ranks * tokens, H] f32
  OutputCheck check(TensorView ours) const;

  // Of the expert with the most rows.
  std::string implementation() const;

 private:
  // An expert, or the shared experts, with the rows it works on: [begin, begin + tokens.size()) of the buffers.
  struct Mlp {
    std::unique_ptr<GemmBaseline> gate_up;  // [2I, H]
    std::unique_ptr<GemmBaseline> down;     // [H, I]
    RowSizes gate_up_rows;
    RowSizes down_rows;
    int64_t inner = 0;
    std::vector<int64_t> tokens;
    std::vector<float> weight;
    Buffer x, gate_up_out, act, out;
  };

  Mlp make_mlp(const MlpNames& names, int64_t inner, WeightSource& source);
  void assign_rows(std::span<const Routing> routing);
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

}  // namespace eps
