// Weights of the CUDA op set: bf16 in device memory, the experts of a layer contiguous.
#pragma once

#include <vector>

#include "ops/cuda/cuda_context.h"
#include "ops/cuda/kernels/gemm/grouped_gemm.h"
#include "ops/op_set.h"

namespace eps::cuda {

// Memory for `count` weights [n, k], which is filled in order.
struct CudaWeightPool final : ops::WeightPool {
  CudaWeightPool(MemoryResource& resource, int64_t num_weights, int64_t out_features, int64_t in_features);

  nv_bf16* data() const { return reinterpret_cast<nv_bf16*>(memory.data()); }

  int64_t count;
  int64_t n;
  int64_t k;
  int64_t num_packed = 0;
  Buffer memory;
  GroupedWeight grouped;  // all of the pool's weights
};

struct CudaLinear final : ops::LinearWeight {
  int64_t n = 0;
  int64_t k = 0;
  const nv_bf16* w = nullptr;    // [n, k]
  const nv_bf16* low = nullptr;  // [n, k] the remainder of f32 weights after rounding to bf16; null if it is zero
  const CudaWeightPool* pool = nullptr;  // null: the weight owns its memory
  int64_t pool_index = 0;
  Buffer memory, low_memory;

  int64_t out_features() const override { return n; }
  int64_t in_features() const override { return k; }
  size_t num_bytes() const override { return static_cast<size_t>(n * k) * sizeof(nv_bf16) * (low == nullptr ? 1 : 2); }
  DType input_dtype() const override { return DType::kBF16; }
};

struct CudaMla final : ops::MlaWeight {
  Buffer memory;
  int64_t rows = 0;  // heads * (nope + v)
  int64_t lora = 0;
  const nv_bf16* kv_b() const { return reinterpret_cast<const nv_bf16*>(memory.data()); }
  size_t num_bytes() const override { return static_cast<size_t>(rows * lora) * sizeof(nv_bf16); }
};

// Packs parts stacked along N. With `exact`, the remainder of weights that bf16 cannot represent is kept in `low`,
// which makes products as accurate as with a 16-bit mantissa.
std::unique_ptr<CudaLinear> pack_cuda_linear(std::span<const TensorView> parts, bool exact, CudaWeightPool* pool,
                                             MemoryResource& memory, Uploader& uploader);

inline const CudaLinear& as_cuda(const ops::LinearWeight& weight) { return static_cast<const CudaLinear&>(weight); }

}  // namespace eps::cuda
