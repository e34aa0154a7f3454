// Multi-head latent attention on the CPU.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "ops/cpu/packed_linear.h"
#include "ops/cpu/vector_ops.h"
#include "ops/host_step.h"
#include "ops/op_set.h"

namespace eps::ops {

// The key/value up-projection in two forms. Prefill expands keys and values of the whole context once (`expand`).
// Decoding projects the few new queries into the latent space instead (`key_up`, `value_up`), so that only the small
// cache is read.
struct CpuMlaWeight final : MlaWeight {
  std::unique_ptr<PackedLinear> expand;                 // [heads * (nope + v), lora]
  std::vector<std::unique_ptr<PackedLinear>> key_up;    // per head [lora, nope]: its key rows transposed
  std::vector<std::unique_ptr<PackedLinear>> value_up;  // per head [v, lora]
  size_t num_bytes() const override;
};

std::unique_ptr<CpuMlaWeight> pack_cpu_mla(const TensorView& kv_b, const MlaParams& params,
                                           const CpuEngineChoice& engine, const CpuEngineChoice& f32_engine,
                                           ThreadPool& pool);

class CpuMla {
 public:
  CpuMla(const VectorOps& vec, const CpuEngineChoice& f32_engine, ThreadPool& pool)
      : vec_(vec), f32_engine_(f32_engine), pool_(pool) {}

  // See OpSet::mla_attention.
  void run(const MlaParams& params, const CpuMlaWeight& weight, const float* q, std::span<const MlaSequence> sequences,
           float* out);

 private:
  void run_expanded(const MlaParams& params, const CpuMlaWeight& weight, const float* q, const MlaSequence& seq,
                    float* out);
  void run_absorbed(const MlaParams& params, const CpuMlaWeight& weight, const float* q, const MlaSequence& seq,
                    int64_t head, float* out) const;

  const VectorOps& vec_;
  CpuEngineChoice f32_engine_;
  ThreadPool& pool_;
  Buffer latent_;  // the cache in the expand weight's input dtype
  Buffer kv_;      // [context, heads * (nope + v)] f32
};

}  // namespace eps::ops
