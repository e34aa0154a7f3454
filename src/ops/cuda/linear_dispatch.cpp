#include "ops/cuda/linear_dispatch.h"

#include "ops/cuda/elements.h"
#include "ops/cuda/kernels/gemm/small_linear.h"
#include "ops/cuda/kernels/router/gate.h"

namespace eps::cuda {

void LinearDispatch::run(std::span<const ops::LinearTask> tasks) {
  if (const auto grouped = find_grouped(tasks)) {
    return run_grouped(*grouped, bf16_of(tasks.front().x), bf16_of(tasks.front().y), GroupedEpilogue::kStore);
  }
  if (run_small(tasks)) return;
  for (const ops::LinearTask& task : tasks) run_one(task);
}

bool LinearDispatch::run_silu_mul(std::span<const ops::LinearTask> tasks, const MutableTensorView& act) {
  const auto grouped = find_grouped(tasks);
  if (!grouped) return false;
  run_grouped(*grouped, bf16_of(tasks.front().x), bf16_of(act), GroupedEpilogue::kSiluMul);
  return true;
}

// The tasks form one grouped GEMM if their weights are in one pool in ascending order and their rows are adjacent in
// memory, so that offsets alone describe the groups. Experts of the pool without a task have no rows.
std::optional<LinearDispatch::GroupedTasks> LinearDispatch::find_grouped(std::span<const ops::LinearTask> tasks) {
  if (tasks.size() < 2) return std::nullopt;
  GroupedTasks out{as_cuda(*tasks.front().weight).pool, {}, 0};
  if (out.pool == nullptr) return std::nullopt;
  out.rows.assign(static_cast<size_t>(out.pool->count), 0);
  int64_t last = -1;
  for (const ops::LinearTask& task : tasks) {
    const CudaLinear& weight = as_cuda(*task.weight);
    if (weight.pool != out.pool || weight.pool_index <= last || task.y.dtype() != DType::kBF16) return std::nullopt;
    if (bf16_of(task.x) != bf16_of(tasks.front().x) + out.total * out.pool->k) return std::nullopt;
    if (bf16_of(task.y) != bf16_of(tasks.front().y) + out.total * out.pool->n) return std::nullopt;
    last = weight.pool_index;
    out.rows[static_cast<size_t>(last)] = task.x.dim(0);
    out.total += task.x.dim(0);
  }
  return out;
}

void LinearDispatch::run_grouped(const GroupedTasks& tasks, const nv_bf16* x, nv_bf16* y, GroupedEpilogue epilogue) {
  std::vector<int32_t> offsets(tasks.rows.size() + 1, 0);
  for (size_t g = 0; g < tasks.rows.size(); ++g) offsets[g + 1] = offsets[g] + static_cast<int32_t>(tasks.rows[g]);
  const auto* on_device = reinterpret_cast<const int32_t*>(list_.upload(std::as_bytes(std::span(offsets))));
  grouped_.run(*tasks.pool, epilogue, x, y, on_device, tasks.total, tasks.rows);
}

// Computes several products of the same few rows in one launch. Returns false, without doing anything, if the tasks do
// not have that form.
bool LinearDispatch::run_small(std::span<const ops::LinearTask> tasks) {
  if (tasks.size() < 2 || tasks.size() > static_cast<size_t>(kMaxSmallMatrices)) return false;
  const TensorView& x = tasks.front().x;
  SmallLinearParams<nv_bf16> params;
  params.m = static_cast<int>(x.dim(0));
  params.k = static_cast<int>(x.dim(1));
  if (params.m == 0 || params.m > kMaxSmallRows) return false;
  for (size_t i = 0; i < tasks.size(); ++i) {
    const ops::LinearTask& task = tasks[i];
    const CudaLinear& weight = as_cuda(*task.weight);
    if (task.x.data() != x.data() || task.x.dim(0) != x.dim(0)) return false;
    if (task.y.dtype() != DType::kBF16 || weight.low != nullptr) return false;
    params.matrices[i] = {weight.w, static_cast<int>(weight.n), bf16_of(task.y)};
  }
  params.x = bf16_of(x);
  launch_small_linear(params, stream_);
  return true;
}

void LinearDispatch::run_one(const ops::LinearTask& task) {
  const CudaLinear& weight = as_cuda(*task.weight);
  EPS_CHECK_EQ(task.x.dim(1), weight.k);
  EPS_CHECK_EQ(task.y.dim(1), weight.n);
  const int64_t rows = task.x.dim(0);
  if (rows == 0) return;
  const nv_bf16* x = bf16_of(task.x);
  if (rows > kMaxSmallRows) {
    blas_.run(x, weight.w, task.y.data(), task.y.dtype(), rows, weight.n, weight.k, false, num_sms_);
    if (weight.low != nullptr) {
      blas_.run(x, weight.low, task.y.data(), task.y.dtype(), rows, weight.n, weight.k, true, num_sms_);
    }
    return;
  }
  const auto m = static_cast<int>(rows);
  const auto n = static_cast<int>(weight.n);
  const auto k = static_cast<int>(weight.k);
  static_assert(kMaxRouterRows == kMaxSmallRows);
  if (task.y.dtype() == DType::kF32 && n <= kMaxGateExperts && weight.low == nullptr) {
    return launch_score_experts(
        {.x = x, .w = weight.w, .num_experts = n, .rows = m, .width = k, .logits = task.y.as<float>()}, stream_);
  }
  visit_elements(task.y, [&]<typename Y>(Y* y) {
    launch_small_linear<Y>({.x = x, .m = m, .k = k, .matrices = {{.w = weight.w, .n = n, .y = y}}}, stream_);
  });
  if (weight.low == nullptr) return;
  launch_small_linear_add({.x = x, .m = m, .k = k, .matrices = {{.w = weight.low, .n = n, .y = task.y.as<float>()}}},
                          stream_);
}

}  // namespace eps::cuda
