// The shared experts of an MoE layer, which every token takes: one dense FFN, possibly with a gate.
#pragma once

#include "ops/cuda/cublas_gemm.h"
#include "ops/moe_weights.h"

namespace eps::cuda {

class SharedExpert {
 public:
  // The references must outlive the object.
  SharedExpert(MemoryResource& device, CublasGemm& blas, cudaStream_t stream);

  // out [num_tokens, H] = the shared experts' output for x [num_tokens, H], both bf16. The memory between the products
  // is allocated for `most_tokens`. GEMMs run on `num_sms` SMs (0: all).
  void run(const ops::MoeWeights& weights, const nv_bf16* x, int64_t num_tokens, int64_t most_tokens, int num_sms,
           nv_bf16* out);
  // Allocates what run() and gate_logits() need for up to `most_tokens`.
  void reserve(const ops::MoeWeights& weights, int64_t most_tokens);
  // logits [num_tokens] of the gate; null if the layer has no gate.
  const float* gate_logits(const ops::MoeWeights& weights, const nv_bf16* x, int64_t num_tokens, int64_t most_tokens,
                           int num_sms);

 private:
  CublasGemm& blas_;
  cudaStream_t stream_;
  Buffer gate_up_, act_, logits_;
};

}  // namespace eps::cuda
