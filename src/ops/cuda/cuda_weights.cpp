#include "ops/cuda/cuda_weights.h"

#include <algorithm>

#include "tensor/widen.h"

namespace eps::cuda {
namespace {

// Returns what rounding to bf16 discards from each element; empty if nothing is discarded.
std::vector<float> rounding_rest(const TensorView& part) {
  if (part.dtype() == DType::kBF16) return {};
  std::vector<float> rest(static_cast<size_t>(part.numel()));
  widen_to_f32(part, rest.data());
  bool any = false;
  for (float& v : rest) {
    v -= to_float(to_bf16(v));
    any = any || v != 0;
  }
  return any ? rest : std::vector<float>{};
}

}  // namespace

CudaWeightPool::CudaWeightPool(MemoryResource& resource, int64_t num_weights, int64_t out_features, int64_t in_features)
    : count(num_weights), n(out_features), k(in_features), memory(resource) {
  memory.reserve(std::max<size_t>(1, static_cast<size_t>(count * n * k) * sizeof(nv_bf16)));
  grouped = make_grouped_weight(data(), static_cast<int>(count), n, k);
}

std::unique_ptr<CudaLinear> pack_cuda_linear(std::span<const TensorView> parts, bool exact, CudaWeightPool* pool,
                                             MemoryResource& memory, Uploader& uploader) {
  auto out = std::make_unique<CudaLinear>();
  out->k = parts[0].dim(1);
  for (const TensorView& part : parts) {
    EPS_CHECK_EQ(part.dim(1), out->k);
    out->n += part.dim(0);
  }
  const size_t bytes = std::max<size_t>(1, static_cast<size_t>(out->n * out->k) * sizeof(nv_bf16));
  nv_bf16* w = nullptr;
  if (pool != nullptr) {
    EPS_CHECK(out->n == pool->n && out->k == pool->k && pool->num_packed < pool->count, "a [{}, {}] weight in its pool",
              out->n, out->k);
    out->pool = pool;
    out->pool_index = pool->num_packed++;
    w = pool->data() + out->pool_index * out->n * out->k;
  } else {
    out->memory = Buffer(memory);
    out->memory.reserve(bytes);
    w = reinterpret_cast<nv_bf16*>(out->memory.data());
  }
  out->w = w;
  for (const TensorView& part : parts) {
    uploader.upload_as_bf16(part, w);
    const std::vector<float> rest = exact ? rounding_rest(part) : std::vector<float>{};
    if (!rest.empty()) {
      EPS_CHECK_EQ(parts.size(), size_t{1});
      out->low_memory = Buffer(memory);
      out->low_memory.reserve(bytes);
      auto* low = reinterpret_cast<nv_bf16*>(out->low_memory.data());
      uploader.upload_as_bf16({rest.data(), DType::kF32, part.shape()}, low);
      out->low = low;
    }
    w += part.numel();
  }
  return out;
}

}  // namespace eps::cuda
