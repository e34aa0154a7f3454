// Our arm and the baseline of `bench layer` on a device, whose op set does a layer by itself (ops/local_moe.h).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "measure/expert_gemms.h"
#include "moe/routing.h"
#include "ops/local_moe.h"

namespace eps {

class DeviceLayer {
 public:
  // One layer, its tokens and their routing on the device. ops and layer outlive the object.
  DeviceLayer(OpSet& ops, const LayerWeights& layer, const Routing& routing, int num_experts, int64_t hidden,
              int64_t inner, uint64_t seed);

  // µs of the whole layer after its gate: rows sorted, gathered, multiplied, weighted and added up, shared experts.
  double time_layer(const LocalKernels& kernels);
  // µs of its GEMMs (and silu·mul) in these kernels, and of the same GEMMs as one cuBLAS call per expert, alone. Shared
  // experts included.
  double time_gemms(const LocalKernels& kernels);
  double time_baseline();

  // How far the grouped kernels' output is from that of cuBLAS's: ‖a − b‖ / ‖b‖ as a part of what rounding allows.
  double compare_kernels();

 private:
  double time_shared();
  std::vector<float> output(const LocalKernels& kernels);

  OpSet& ops_;
  MoeWeights weights_;
  int num_experts_;
  int64_t num_tokens_;
  int64_t hidden_;
  std::vector<int64_t> load_;
  ExpertGemms gemms_;
  Buffer x_memory_, out_memory_, idx_memory_, weight_memory_, shared_memory_, shared_act_memory_;
  MutableTensorView x_, out_, idx_, weight_;
};

}  // namespace eps
