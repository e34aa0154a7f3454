#include "ops/cuda/cuda_local_moe.h"

#include <algorithm>

#include "ops/cuda/cuda_context.h"
#include "ops/cuda/kernels/gemm/small_experts.h"
#include "ops/cuda/kernels/router/gate.h"
#include "ops/cuda/kernels/rows/elementwise.h"
#include "ops/cuda/kernels/rows/sort_rows.h"

namespace eps::cuda {

bool has_plain_experts(const ops::MoeWeights& weights) {
  return !weights.gate_up_bias && weights.swiglu == ops::SwigluParams{};
}

namespace {

nv_bf16* bf16_view(Buffer& buffer, int64_t rows, int64_t width) {
  return static_cast<nv_bf16*>(buffer.view(DType::kBF16, {rows, width}).data());
}

template <typename T>
T* view_of(Buffer& buffer, int64_t count) {
  return buffer.view(DTypeOf<T>::value, {count}).template as<T>();
}

}  // namespace

CudaLocalMoe::CudaLocalMoe(MemoryResource& device, CublasGemm& blas, GroupedGemm& grouped, cudaStream_t stream)
    : blas_(blas),
      grouped_(grouped),
      stream_(stream),
      shared_(device, blas, stream),
      idx_memory_(device),
      weight_memory_(device),
      offsets_(device),
      row_of_(device),
      sort_workspace_(device),
      x_rows_(device),
      gate_up_(device),
      act_(device),
      rows_(device),
      shared_act_(device),
      shared_out_(device) {}

void CudaLocalMoe::begin_routing(int64_t num_tokens, int num_experts, int top_k) {
  num_tokens_ = num_tokens;
  num_experts_ = num_experts;
  top_k_ = top_k;
  is_sorted_ = false;
  load_.clear();
}

void CudaLocalMoe::route(const ops::GateParams& gate, TensorView logits, TensorView correction) {
  begin_routing(logits.dim(0), gate.num_experts, gate.top_k);
  auto* idx = view_of<int32_t>(idx_memory_, num_rows());
  auto* weight = view_of<float>(weight_memory_, num_rows());
  launch_select_experts({.logits = logits.as<const float>(),
                         .correction = correction.as<const float>(),
                         .gate = gate,
                         .rows = num_tokens_,
                         .idx = idx,
                         .weight = weight},
                        stream_);
  idx_ = idx;
  weight_ = weight;
}

void CudaLocalMoe::set_routing(int num_experts, TensorView topk_idx, TensorView topk_weight) {
  begin_routing(topk_idx.dim(0), num_experts, static_cast<int>(topk_idx.dim(1)));
  idx_ = topk_idx.as<const int32_t>();
  weight_ = topk_weight.as<const float>();
}

void CudaLocalMoe::sort_rows() {
  if (is_sorted_ || num_tokens_ == 0) return;
  sort_workspace_.reserve(std::max<size_t>(1, sort_rows_workspace_bytes(num_tokens_, top_k_, num_experts_)));
  launch_sort_rows({.idx = idx_,
                    .tokens = num_tokens_,
                    .top_k = top_k_,
                    .num_experts = num_experts_,
                    .workspace = sort_workspace_.data(),
                    .offsets = view_of<int32_t>(offsets_, num_experts_ + 1),
                    .row_of = view_of<int32_t>(row_of_, num_rows())},
                   stream_);
  is_sorted_ = true;
}

std::vector<int64_t> CudaLocalMoe::load() {
  check_not_recording("LocalMoe::load");
  std::vector<int32_t> offsets(static_cast<size_t>(num_experts_) + 1, 0);
  if (num_tokens_ > 0) {
    sort_rows();
    EPS_CUDA(cudaMemcpyAsync(offsets.data(), offsets_.data(), offsets.size() * sizeof(int32_t), cudaMemcpyDeviceToHost,
                             stream_));
    EPS_CUDA(cudaStreamSynchronize(stream_));
  }
  load_.clear();
  for (size_t e = 0; e + 1 < offsets.size(); ++e) load_.push_back(offsets[e + 1] - offsets[e]);
  return load_;
}

CudaLocalMoe::Experts CudaLocalMoe::find_experts(const ops::MoeWeights& weights) {
  const CudaLinear& up = as_cuda(*weights.gate_up.front());
  const CudaLinear& down = as_cuda(*weights.down.front());
  EPS_CHECK(up.pool != nullptr && down.pool != nullptr, "the experts of a layer must be packed into pools");
  return {&weights, up.pool, down.pool, has_plain_experts(weights), up.k, down.k};
}

void CudaLocalMoe::run(const ops::MoeWeights& weights, const ops::LocalKernels& kernels, TensorView x,
                       MutableTensorView out) {
  EPS_CHECK_EQ(x.dim(0), num_tokens_);
  if (num_tokens_ == 0) return;
  const Experts experts = find_experts(weights);
  const auto* from = static_cast<const nv_bf16*>(x.data());
  auto* to = static_cast<nv_bf16*>(out.data());
  if (uses_small_kernels()) {
    run_small(experts, from, to);
  } else {
    run_sorted(experts, kernels, from, to);
  }
}

bool CudaLocalMoe::uses_small_kernels() const { return num_tokens_ <= kMaxSmallRows && top_k_ <= kMaxSmallTopK; }

void CudaLocalMoe::run_small(const Experts& experts, const nv_bf16* x, nv_bf16* out) {
  SmallExpertsUpParams up;
  up.x = x;
  up.tokens = static_cast<int>(num_tokens_);
  up.hidden = static_cast<int>(experts.hidden);
  up.idx = idx_;
  up.top_k = top_k_;
  up.w = experts.gate_up->data();
  up.inter = static_cast<int>(experts.inner);
  up.act = bf16_view(act_, num_rows(), experts.inner);
  up.bias = experts.gate_up_bias();
  up.swiglu = experts.all->swiglu;
  SmallExpertsDownParams down;
  down.act = up.act;
  down.idx = idx_;
  down.weight = weight_;
  down.tokens = up.tokens;
  down.top_k = top_k_;
  down.w = experts.down->data();
  down.hidden = up.hidden;
  down.inter = up.inter;
  down.bias = experts.down_bias();
  if (experts.has_shared()) {
    const CudaLinear& shared_up = as_cuda(*experts.all->shared_gate_up);
    const CudaLinear& shared_down = as_cuda(*experts.all->shared_down);
    up.w_shared = shared_up.w;
    up.shared_inter = static_cast<int>(shared_down.k);
    up.act_shared = bf16_view(shared_act_, num_tokens_, shared_down.k);
    down.act_shared = up.act_shared;
    down.w_shared = shared_down.w;
    down.shared_inter = up.shared_inter;
    down.shared_logit = shared_.gate_logits(*experts.all, x, num_tokens_, kMaxSmallRows, num_sms_);
  }
  down.out = out;
  launch_small_experts_up(up, stream_);
  launch_small_experts_down(down, stream_);
}

void CudaLocalMoe::run_sorted(const Experts& experts, const ops::LocalKernels& kernels, const nv_bf16* x,
                              nv_bf16* out) {
  sort_rows();
  const nv_bf16* shared = experts.has_shared() ? run_shared(experts, x) : nullptr;
  nv_bf16* x_rows = bf16_view(x_rows_, num_rows(), experts.hidden);
  nv_bf16* act = bf16_view(act_, num_rows(), experts.inner);
  nv_bf16* rows = bf16_view(rows_, num_rows(), experts.hidden);
  const auto* row_of = reinterpret_cast<const int32_t*>(row_of_.data());
  launch_gather_rows({.x = x,
                      .row_of = row_of,
                      .tokens = num_tokens_,
                      .top_k = top_k_,
                      .width = static_cast<int>(experts.hidden),
                      .out = x_rows},
                     stream_);
  gate_up(experts, kernels.gate_up, x_rows, act);
  down(experts, kernels.down, act, rows);
  launch_sum_rows({.rows = rows,
                   .row_of = row_of,
                   .weight = weight_,
                   .shared = shared,
                   .tokens = num_tokens_,
                   .top_k = top_k_,
                   .width = static_cast<int>(experts.hidden),
                   .out = out},
                  stream_);
}

const nv_bf16* CudaLocalMoe::run_shared(const Experts& experts, const nv_bf16* x) {
  nv_bf16* out = bf16_view(shared_out_, num_tokens_, experts.hidden);
  shared_.run(*experts.all, x, num_tokens_, num_tokens_, num_sms_, out);
  return out;
}

ExpertGroups CudaLocalMoe::groups() const {
  return {reinterpret_cast<const int32_t*>(offsets_.data()), nullptr, num_experts_, num_rows()};
}

void CudaLocalMoe::gate_up(const Experts& experts, moe::GemmKind kernel, const nv_bf16* x, nv_bf16* act) {
  const bool is_grouped = kernel == moe::GemmKind::kGrouped;
  if (is_grouped && experts.are_plain) {
    return run_grouped(*experts.gate_up, GroupedEpilogue::kSiluMul, x, act);
  }
  nv_bf16* gate_up = bf16_view(gate_up_, num_rows(), 2 * experts.inner);
  if (is_grouped) {
    run_grouped(*experts.gate_up, GroupedEpilogue::kStore, x, gate_up);
  } else {
    run_dense(*experts.gate_up, x, gate_up);
  }
  const auto width = static_cast<int>(experts.inner);
  if (experts.are_plain) {
    launch_swiglu<nv_bf16>({.gate_up = gate_up, .rows = num_rows(), .width = width, .out = act}, stream_);
  } else {
    launch_expert_swiglu({.gate_up = gate_up,
                          .bias = experts.gate_up_bias(),
                          .swiglu = experts.all->swiglu,
                          .groups = groups(),
                          .width = width,
                          .out = act},
                         stream_);
  }
}

void CudaLocalMoe::down(const Experts& experts, moe::GemmKind kernel, const nv_bf16* act, nv_bf16* rows) {
  if (kernel == moe::GemmKind::kGrouped) {
    run_grouped(*experts.down, GroupedEpilogue::kStore, act, rows);
  } else {
    run_dense(*experts.down, act, rows);
  }
  if (const float* bias = experts.down_bias()) {
    launch_expert_bias({.rows = rows, .bias = bias, .groups = groups(), .width = static_cast<int>(experts.hidden)},
                       stream_);
  }
}

void CudaLocalMoe::run_grouped(const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y) {
  EPS_CHECK_EQ(pool.count, num_experts_);
  grouped_.run(pool, epilogue, x, y, reinterpret_cast<const int32_t*>(offsets_.data()), num_rows(), load_);
}

void CudaLocalMoe::run_dense(const CudaWeightPool& pool, const nv_bf16* x, nv_bf16* y) {
  EPS_CHECK(!load_.empty(), "dense kernels need the load: load() must be called before run()");
  int64_t begin = 0;
  for (int64_t e = 0; e < num_experts_; ++e) {
    const int64_t rows = load_[static_cast<size_t>(e)];
    blas_.run(x + begin * pool.k, pool.data() + e * pool.n * pool.k, y + begin * pool.n, DType::kBF16, rows, pool.n,
              pool.k, false, num_sms_);
    begin += rows;
  }
}

}  // namespace eps::cuda
