// Linear layers on the CPU: weights are packed once, then y = x * W^T is computed for one or many (grouped) products.
//
// Row invariance: the bits of a result row depend only on that row of x and on W. They do not depend on the number or
// the position of the rows in a call, on the number of threads, or on other products in the same call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/cpu_features.h"
#include "base/thread_pool.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace eps::ops {

class OneDnnContext;

enum class CpuEngine {
  kPanel,   // our f32 kernels over weights in their stored dtype
  kAmx,     // our bf16 kernels, accumulated in f32, for CPUs with AMX tiles
  kOneDnn,  // oneDNN: bf16 x bf16, accumulated in f32, for CPUs with bf16 instructions but no tiles
};

struct CpuEngineChoice {
  CpuEngine engine = CpuEngine::kPanel;
  DType compute = DType::kF32;  // of x: f32 for kPanel, otherwise bf16
  std::string isa;              // "portable", "avx2", "avx512", "avx512_bf16", "amx_bf16"
  std::string reason;           // one line for `doctor`
  CpuFeatures features;         // the CPU that the choice was made for; other kernels may use its instruction sets, too
  // kOneDnn only. Shared by all weights that are packed with this choice, because they use the same primitives and may
  // outlive the choice.
  std::shared_ptr<OneDnnContext> onednn;
};

// Errors  kUsage if bf16 is requested and the CPU has no instructions for it, or if the dtype is neither f32 nor bf16
// Edge    without a dtype: bf16 if the CPU has AMX, otherwise f32
CpuEngineChoice choose_cpu_engine(std::optional<DType> wanted_compute);
// The same for a given CPU. Products can only be run on a CPU that supports the chosen engine.
CpuEngineChoice choose_cpu_engine(std::optional<DType> wanted_compute, const CpuFeatures& features);

// One weight in an engine's own layout. Immutable after packing, so any number of threads may use it.
class PackedLinear {
 public:
  virtual ~PackedLinear() = default;
  PackedLinear(const PackedLinear&) = delete;
  PackedLinear& operator=(const PackedLinear&) = delete;

  int64_t out_features() const { return n_; }  // N
  int64_t in_features() const { return k_; }   // K
  virtual size_t num_bytes() const = 0;        // of packed memory
  virtual DType input_dtype() const = 0;       // of x

  // The granularity at which run_gemms cuts products for this engine.
  struct Grain {
    int64_t columns;  // slices of N begin at multiples of this
    int64_t rows;     // maximum number of rows in a block
  };
  virtual Grain grain() const = 0;

  // Multiplies rows [0, m) with columns [n_begin, n_end), which are multiples of the grain. `x` points to the first
  // row, `y` to its column 0; ldx and ldy are in elements.
  virtual void run_block(const void* x, int64_t ldx, float* y, int64_t ldy, int64_t m, int64_t n_begin,
                         int64_t n_end) const = 0;

 protected:
  PackedLinear(int64_t n, int64_t k) : n_(n), k_(k) {}

 private:
  int64_t n_;
  int64_t k_;
};

// Shapes  parts: one or more [N_i, K], f32, bf16 or f16, stacked along N (gate and up become one product)
// Owns    a packed copy; the parts are not needed afterwards
// Threads packing is shared by the threads of `pool`; if it is null, the calling thread packs alone
// Errors  kInternal if shapes or dtypes do not match
std::unique_ptr<PackedLinear> pack_linear(std::span<const TensorView> parts, const CpuEngineChoice& choice,
                                          ThreadPool* pool = nullptr);

struct GemmTask {
  const PackedLinear* weight = nullptr;
  const void* x = nullptr;  // [m, K] of weight->input_dtype(), rows ldx elements apart
  int64_t ldx = 0;
  float* y = nullptr;  // [m, N], rows ldy elements apart; memory between rows is not written
  int64_t ldy = 0;
  int64_t m = 0;
};

// Computes y = x * W^T for each task. The outputs must not overlap each other or any x.
// Threads tasks are split over the pool by blocks of rows and slices of columns
// Edge    m == 0 writes nothing
void run_gemms(std::span<const GemmTask> tasks, ThreadPool& pool);

}  // namespace eps::ops
