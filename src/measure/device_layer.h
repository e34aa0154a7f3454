// Our arm and the baseline of `bench layer` on a device whose op set implements whole layers (ops/local_moe.h).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "measure/expert_gemms.h"
#include "moe/routing.h"
#include "ops/local_moe.h"

namespace eps::measure {

class DeviceLayer {
 public:
  // Uploads the tokens of one layer and their routing to the device. ops and layer outlive the object.
  DeviceLayer(ops::OpSet& ops, const model::LayerWeights& layer, const moe::Routing& routing, int num_experts,
              int64_t hidden, int64_t inner, uint64_t seed);

  // Time in µs of the whole layer after its gate: sorting and gathering rows, GEMMs, weighted sums, shared experts.
  double time_layer(const ops::LocalKernels& kernels);
  // Times in µs of its GEMMs, shared experts included: with these kernels and silu·mul, and as one cuBLAS call per
  // expert without silu·mul.
  double time_gemms(const ops::LocalKernels& kernels);
  double time_baseline();

  // The difference ‖a − b‖ / ‖b‖ between the outputs of the grouped kernels and of cuBLAS, as a fraction of what
  // rounding can explain.
  double compare_kernels();

 private:
  double time_shared();
  std::vector<float> output(const ops::LocalKernels& kernels);

  ops::OpSet& ops_;
  ops::MoeWeights weights_;
  int num_experts_;
  int64_t num_tokens_;
  int64_t hidden_;
  std::vector<int64_t> load_;
  ExpertGemms gemms_;
  Buffer x_memory_, out_memory_, idx_memory_, weight_memory_, shared_memory_, shared_act_memory_;
  MutableTensorView x_, out_, idx_, weight_;
};

}  // namespace eps::measure
