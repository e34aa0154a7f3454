#include "ops/cuda/shared_expert.h"

#include "ops/cuda/cuda_weights.h"
#include "ops/cuda/kernels/router/gate.h"
#include "ops/cuda/kernels/rows/elementwise.h"

namespace eps::cuda {

SharedExpert::SharedExpert(MemoryResource& device, CublasGemm& blas, cudaStream_t stream)
    : blas_(blas), stream_(stream), gate_up_(device), act_(device), logits_(device) {}

void SharedExpert::reserve(const ops::MoeWeights& weights, int64_t most_tokens) {
  const int64_t inner = as_cuda(*weights.shared_down).k;
  gate_up_.view(DType::kBF16, {most_tokens, 2 * inner});
  act_.view(DType::kBF16, {most_tokens, inner});
  if (weights.shared_gate != nullptr) logits_.view(DType::kF32, {most_tokens});
}

const float* SharedExpert::gate_logits(const ops::MoeWeights& weights, const nv_bf16* x, int64_t num_tokens,
                                       int64_t most_tokens, int num_sms) {
  if (weights.shared_gate == nullptr) return nullptr;
  const CudaLinear& gate = as_cuda(*weights.shared_gate);
  auto* logits = logits_.view(DType::kF32, {most_tokens}).as<float>();
  if (num_tokens <= kMaxRouterRows) {
    launch_score_experts({.x = x,
                          .w = gate.w,
                          .num_experts = 1,
                          .rows = static_cast<int>(num_tokens),
                          .width = static_cast<int>(gate.k),
                          .logits = logits},
                         stream_);
  } else {
    blas_.run(x, gate.w, logits, DType::kF32, num_tokens, 1, gate.k, false, num_sms);
  }
  return logits;
}

void SharedExpert::run(const ops::MoeWeights& weights, const nv_bf16* x, int64_t num_tokens, int64_t most_tokens,
                       int num_sms, nv_bf16* out) {
  const CudaLinear& up = as_cuda(*weights.shared_gate_up);
  const CudaLinear& down = as_cuda(*weights.shared_down);
  const int64_t hidden = up.k;
  const int64_t inner = down.k;
  auto* gate_up = static_cast<nv_bf16*>(gate_up_.view(DType::kBF16, {most_tokens, 2 * inner}).data());
  auto* act = static_cast<nv_bf16*>(act_.view(DType::kBF16, {most_tokens, inner}).data());
  blas_.run(x, up.w, gate_up, DType::kBF16, num_tokens, 2 * inner, hidden, false, num_sms);
  launch_swiglu<nv_bf16>({.gate_up = gate_up, .rows = num_tokens, .width = static_cast<int>(inner), .out = act},
                         stream_);
  blas_.run(act, down.w, out, DType::kBF16, num_tokens, hidden, inner, false, num_sms);
  if (const float* logits = gate_logits(weights, x, num_tokens, most_tokens, num_sms)) {
    launch_scale_by_sigmoid(out, logits, num_tokens, static_cast<int>(hidden), stream_);
  }
}

}  // namespace eps::cuda
