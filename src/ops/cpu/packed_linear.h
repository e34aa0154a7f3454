// Linear layers on the CPU: weights packed once, y = x * W^T for one or many (grouped) products.
//
// Row invariance: the bits of a result row depend on that row of x and on W, never on how many rows a call has, where
// the row stands, which neighbours it has, how many threads run, or whether other products share the call.
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

namespace eps {

class OneDnnContext;

enum class CpuEngine {
  kPanel,   // our f32 kernels over weights in their stored dtype
  kAmx,     // our bf16 kernels, accumulated in f32, for CPUs with AMX tiles
  kOneDnn,  // oneDNN: bf16 x bf16, accumulated in f32, for CPUs with bf16 instructions but no tiles
};

struct CpuEngineChoice {
  CpuEngine engine = CpuEngine::kPanel;
  DType compute = DType::kF32;  // dtype of x: f32 for kPanel, else bf16
  std::string isa;              // "portable", "avx2", "avx512", "avx512_bf16", "amx_bf16"
  std::string reason;           // one line for `doctor`
  CpuFeatures features;         // that the choice was made for: what other kernels beside the engine may use
  // Shared: every weight packed with this choice uses the same primitives, and may outlive the choice. kOneDnn only.
  std::shared_ptr<OneDnnContext> onednn;
};

// Errors  kUsage when bf16 is wanted and the CPU has no instructions for it, or when the dtype is neither f32 nor bf16
// Edge    no dtype given: bf16 where the CPU has AMX, else f32
CpuEngineChoice choose_cpu_engine(std::optional<DType> wanted_compute);
// The same question for a given CPU. Products may be run only where the CPU really has what was chosen.
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

  // How an engine wants a product cut; run_gemms cuts accordingly.
  struct Grain {
    int64_t columns;  // slices of N begin at multiples of this
    int64_t rows;     // most rows of a block
  };
  virtual Grain grain() const = 0;

  // Rows [0, m) times columns [n_begin, n_end), the latter cut at the grain. `x` points to the first row, `y` to its
  // column 0; ldx and ldy are in elements.
  virtual void run_block(const void* x, int64_t ldx, float* y, int64_t ldy, int64_t m, int64_t n_begin,
                         int64_t n_end) const = 0;

 protected:
  PackedLinear(int64_t n, int64_t k) : n_(n), k_(k) {}

 private:
  int64_t n_;
  int64_t k_;
};

// Shapes  parts  one or more [N_i, K], f32, bf16 or f16, stacked along N (gate and up in one product)
// Owns    a packed copy; the parts may go
// Threads those of `pool` share the packing; null: the calling thread does it
// Errors  kInternal where shapes or dtypes do not fit
std::unique_ptr<PackedLinear> pack_linear(std::span<const TensorView> parts, const CpuEngineChoice& choice,
                                          ThreadPool* pool = nullptr);

struct GemmTask {
  const PackedLinear* weight = nullptr;
  const void* x = nullptr;  // [m, K] of weight->input_dtype(), rows ldx elements apart
  int64_t ldx = 0;
  float* y = nullptr;  // [m, N], rows ldy elements apart; what lies between rows is left alone
  int64_t ldy = 0;
  int64_t m = 0;
};

// y = x * W^T for each task; the y's must not overlap each other or any x.
// Threads split by task, block of rows and slice of columns over the pool
// Edge    m == 0 writes nothing
void run_gemms(std::span<const GemmTask> tasks, ThreadPool& pool);

}  // namespace eps
