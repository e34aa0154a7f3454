// The operations a model needs, behind one interface. One object per rank; activations are f32 unless said otherwise.
//
// Implementations: ops/reference (slow, obvious, the oracle) and ops/cpu. All outputs are written in full; inputs and
// outputs do not overlap unless a function says "in place". Row invariance: a result row depends on its own input row
// alone, never on how many rows come with it or where they stand.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "ops/op_params.h"
#include "tensor/tensor.h"

namespace eps {

// A weight matrix [out, in] in whatever layout its op set likes. Immutable, so ranks share it.
class LinearWeight {
 public:
  virtual ~LinearWeight() = default;
  virtual int64_t out_features() const = 0;
  virtual int64_t in_features() const = 0;
  virtual size_t num_bytes() const = 0;
  virtual DType input_dtype() const = 0;  // what x of a LinearTask must be
};

// The key/value up-projection of MLA, kept in the forms that prefill and decode need.
class MlaWeight {
 public:
  virtual ~MlaWeight() = default;
  virtual size_t num_bytes() const = 0;
};

enum class Precision : uint8_t {
  kCompute,  // the op set's compute dtype
  kF32,      // f32 whatever the op set computes in (the gate)
};

// y [m, out] f32 = x [m, in] · weightᵀ
struct LinearTask {
  const LinearWeight* weight = nullptr;
  TensorView x;
  MutableTensorView y;
};

class OpSet {
 public:
  virtual ~OpSet() = default;

  virtual std::string description() const = 0;  // "cpu f32 avx2, 2 threads"
  virtual DType compute_dtype() const = 0;      // of GEMM inputs and of dispatched rows

  // --- weights ---

  // Packs parts [N_i, K] stacked along N. The parts may be f32, bf16 or f16 and are not referred to afterwards.
  virtual std::unique_ptr<LinearWeight> pack_linear(std::span<const TensorView> parts, Precision precision) const = 0;
  // kv_b [num_heads * (nope_dim + v_dim), kv_lora_rank]
  virtual std::unique_ptr<MlaWeight> pack_mla(const TensorView& kv_b, const MlaParams& params) const = 0;

  // --- dense ops ---

  // out[i] = table[ids[i]]; table [V, H] f32/bf16/f16, out [n, H]
  virtual void embed(const TensorView& table, std::span<const int32_t> ids, MutableTensorView out) = 0;
  // out = x / rms(x) * weight per row; x, out [T, H], weight [H] f32. out may be x.
  virtual void rms_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) = 0;
  // All tasks, in any order or at once. m = 0 is allowed.
  virtual void linear(std::span<const LinearTask> tasks) = 0;
  // out (compute dtype) = x (f32), same shape
  virtual void to_compute(TensorView x, MutableTensorView out) = 0;
  // x += y, in place
  virtual void add(MutableTensorView x, TensorView y) = 0;
  // x [T, N] += bias [N], in place
  virtual void add_bias(MutableTensorView x, TensorView bias) = 0;
  // out [T, I] (compute dtype) = silu(gate_up[:, :I]) * gate_up[:, I:]; gate_up [T, 2I]
  virtual void silu_mul(TensorView gate_up, MutableTensorView out) = 0;

  // --- attention ---

  // Rotates pairs (2i, 2i+1) of the last `rope_dim` of each head, in place. x [T, num_heads * head_dim],
  // positions [T] into `table`.
  virtual void rope(MutableTensorView x, int head_dim, const RopeTable& table, std::span<const int32_t> positions) = 0;
  // Causal multi-head latent attention of each sequence over its latent cache.
  // q [T, num_heads * (nope_dim + rope_dim)] after rope; out [T, num_heads * v_dim]
  virtual void mla_attention(const MlaParams& params, const MlaWeight& weight, TensorView q,
                             std::span<const MlaSequence> sequences, MutableTensorView out) = 0;

  // --- MoE ---

  // softmax over experts, then top-k. logits [T, E]; topk_idx [T, K] i32, topk_weight [T, K] f32, best first.
  // Ties go to the lower index.
  virtual void gate(const GateParams& params, TensorView logits, MutableTensorView topk_idx,
                    MutableTensorView topk_weight) = 0;
  // out[i] = sources[i]; rows of out's width and dtype
  virtual void gather_rows(std::span<const std::byte* const> sources, MutableTensorView out) = 0;
  // rows[i] *= weight[i], in place
  virtual void scale_rows(MutableTensorView rows, std::span<const float> weight) = 0;
  // dst += src for each pair, in order within equal dst (pairs of different tokens may run at once). Rows of `width`.
  virtual void add_rows(std::span<const RowPair> pairs, int64_t width) = 0;
};

}  // namespace eps
