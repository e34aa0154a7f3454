// An MoE layer whose experts are all on one GPU. The device counts, sorts, multiplies and adds up the rows.
#pragma once

#include "ops/cuda/cublas_gemm.h"
#include "ops/cuda/grouped_gemm.h"
#include "ops/cuda/kernels/rows/expert_rows.h"
#include "ops/cuda/shared_expert.h"
#include "ops/local_moe.h"

namespace eps::cuda {

// Whether the experts have the activation that the grouped GEMM applies to its results, and no biases.
bool has_plain_experts(const ops::MoeWeights& weights);

class CudaLocalMoe final : public ops::LocalMoe {
 public:
  CudaLocalMoe(MemoryResource& device, CublasGemm& blas, GroupedGemm& grouped, cudaStream_t stream);

  void route(const ops::GateParams& gate, TensorView logits, TensorView correction) override;
  void set_routing(int num_experts, TensorView topk_idx, TensorView topk_weight) override;
  std::vector<int64_t> load() override;
  int64_t few_tokens() const override { return kFewTokens; }
  void limit_sms(int num_sms) { num_sms_ = num_sms; }
  void run(const ops::MoeWeights& weights, const ops::LocalKernels& kernels, TensorView x,
           MutableTensorView out) override;

 private:
  // Up to this many tokens, the grouped kernel is always faster (docs/kernels/cuda-grouped-gemm.md), because the time
  // is spent reading the weights.
  static constexpr int64_t kFewTokens = 64;

  // The layer's weights. Those of the routed experts are contiguous, and so are their biases.
  struct Experts {
    const ops::MoeWeights* all = nullptr;
    const CudaWeightPool* gate_up = nullptr;
    const CudaWeightPool* down = nullptr;
    bool are_plain = true;
    int64_t hidden = 0;
    int64_t inner = 0;

    bool has_shared() const { return all->shared_down != nullptr; }
    const float* gate_up_bias() const { return all->gate_up_bias.as<const float>(); }
    const float* down_bias() const { return all->down_bias.as<const float>(); }
  };
  static Experts find_experts(const ops::MoeWeights& weights);
  bool uses_small_kernels() const;

  void begin_routing(int64_t num_tokens, int num_experts, int top_k);
  void sort_rows();
  void run_small(const Experts& experts, const nv_bf16* x, nv_bf16* out);
  void run_sorted(const Experts& experts, const ops::LocalKernels& kernels, const nv_bf16* x, nv_bf16* out);
  const nv_bf16* run_shared(const Experts& experts, const nv_bf16* x);
  ExpertGroups groups() const;
  void gate_up(const Experts& experts, moe::GemmKind kernel, const nv_bf16* x, nv_bf16* act);
  void down(const Experts& experts, moe::GemmKind kernel, const nv_bf16* act, nv_bf16* rows);
  void run_grouped(const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y);
  void run_dense(const CudaWeightPool& pool, const nv_bf16* x, nv_bf16* y);
  int64_t num_rows() const { return num_tokens_ * top_k_; }

  CublasGemm& blas_;
  GroupedGemm& grouped_;
  cudaStream_t stream_;
  SharedExpert shared_;

  int num_sms_ = 0;  // SMs that GEMMs may use; 0: all

  // The current routing.
  int64_t num_tokens_ = 0;
  int num_experts_ = 0;
  int top_k_ = 0;
  bool is_sorted_ = false;
  std::vector<int64_t> load_;  // empty: load() has not been called
  const int32_t* idx_ = nullptr;
  const float* weight_ = nullptr;
  Buffer idx_memory_, weight_memory_, offsets_, row_of_, sort_workspace_;
  Buffer x_rows_, gate_up_, act_, rows_, shared_act_, shared_out_;
};

}  // namespace eps::cuda
