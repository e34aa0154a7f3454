// The operations a model needs, behind one interface. One object per rank.
//
// Implementations: ops/reference (slow, obvious, the oracle), ops/cpu and ops/cuda. All outputs are written in full;
// inputs and outputs do not overlap unless a function says "in place". Views are of the op set's memory unless they are
// called host memory. Activations ("act") have the op set's activation dtype, the residual stream is f32 everywhere.
// Row invariance, on the CPU bit for bit: a result row depends on its own input row alone, never on how many rows come
// with it or where they stand.
//
// Calls take effect in their order, and may return before they have: download() waits.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/thread_pool.h"
#include "ops/op_params.h"
#include "ops/step.h"
#include "tensor/tensor.h"

namespace eps {

class Communicator;
class LocalMoe;
class PeerLayer;

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

// y [m, out] = x [m, in] · weightᵀ; y f32 or act
struct LinearTask {
  const LinearWeight* weight = nullptr;
  TensorView x;
  MutableTensorView y;
};

// What planning and measuring need to know about a device.
struct DeviceSizes {
  int num_sms = 0;
  double memory_gb = 0;
  bool fuses_silu_mul = false;  // grouped gate and up projections come out multiplied
  std::string software;         // what runs on it, with versions: for people
};

// Room for weights of one shape that a layer's experts use together. Outlives them.
class WeightPool {
 public:
  virtual ~WeightPool() = default;
};

class OpSet {
 public:
  virtual ~OpSet() = default;

  virtual std::string description() const = 0;                    // "cpu f32 avx2, 2 threads"
  virtual DType compute_dtype() const = 0;                        // of GEMM inputs and of dispatched rows
  virtual DType activation_dtype() const { return DType::kF32; }  // of norms, projections and the cache

  // Of a device with memory of its own; null: the op set works where the host does.
  virtual const DeviceSizes* device() const { return nullptr; }
  // Called on the thread that will call the op set from now on, before it does.
  virtual void bind_thread() const {}
  // GEMMs use at most so many SMs from now on; 0: all. Nothing where there are none.
  virtual void limit_sms(int /*num_sms*/) {}
  // That its loops run on, perhaps together with those of other ranks; null: it has none. Whoever calls ops in turn
  // with other work marks itself as a ComputingThread, so that its place is not taken in between.
  virtual ThreadPool* thread_pool() const { return nullptr; }
  virtual DType weight_dtype(DType stored) const { return stored; }  // that weights stored so are packed in

  // --- memory ---

  virtual MemoryResource& memory() const { return host_memory(); }
  // Host memory that download() writes fastest.
  virtual MemoryResource& staging_memory() const { return host_memory(); }
  // From and to host memory, which may be reused when the call returns. download waits for all calls before it.
  virtual void upload(const void* from, MutableTensorView to) const;
  virtual void download(TensorView from, void* to) const;
  virtual void copy(TensorView from, MutableTensorView to) const;  // of the same size; both in this memory
  virtual void wait() const {}                                     // for all calls before it
  // `host` where this op set's calls can read it: the view itself, or a copy in `storage`.
  virtual TensorView place(TensorView host, Buffer& storage) const;

  // --- weights ---

  // For `count` weights [n, k] that pack_linear is then given one after the other; null: the op set wants none.
  virtual std::unique_ptr<WeightPool> make_weight_pool(int64_t /*count*/, int64_t /*n*/, int64_t /*k*/) const {
    return nullptr;
  }

  // Packs parts [N_i, K] in host memory stacked along N, into `pool` if there is one. The parts may be f32, bf16 or f16
  // and are not referred to afterwards.
  virtual std::unique_ptr<LinearWeight> pack_linear(std::span<const TensorView> parts, Precision precision,
                                                    WeightPool* pool) const = 0;
  std::unique_ptr<LinearWeight> pack_linear(std::span<const TensorView> parts, Precision precision) const {
    return pack_linear(parts, precision, nullptr);
  }
  // kv_b [num_heads * (nope_dim + v_dim), kv_lora_rank] in host memory
  virtual std::unique_ptr<MlaWeight> pack_mla(const TensorView& kv_b, const MlaParams& params) const = 0;

  // --- steps ---

  // The step that embed, rope, store_latents and mla_attention work on from now on.
  virtual void begin_step(const StepInputs& step) = 0;
  // Runs `body`, which calls ops of this op set and nothing else, and whose calls depend on `key` alone (begin_step's
  // values aside): an op set may record them once and play them again. `body` may thus not run at all, so nothing that
  // it leaves on the host may be read afterwards. Returns whether it ran.
  virtual bool run_step(int64_t /*key*/, const std::function<void()>& body) {
    body();
    return true;
  }

  // --- dense ops ---

  // out[i] = table[ids[i]]; table [V, H] f32/bf16/f16, out [T, H] f32
  virtual void embed(TensorView table, MutableTensorView out) = 0;
  // out = x / rms(x) * weight per row; x, out [T, H] f32 or act, weight [H] f32. out may be x.
  virtual void rms_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) = 0;
  // hidden += delta (empty: nothing), then out = rms_norm(hidden); hidden [T, H] f32, delta and out act
  virtual void add_rms_norm(MutableTensorView hidden, TensorView delta, TensorView weight, float eps,
                            MutableTensorView out);
  // All tasks, in any order or at once. m = 0 is allowed.
  virtual void linear(std::span<const LinearTask> tasks) = 0;
  // out (compute dtype) = x (f32), same shape
  virtual void to_compute(TensorView x, MutableTensorView out) = 0;
  // x (f32) += y (f32 or act), in place
  virtual void add(MutableTensorView x, TensorView y) = 0;
  // x [T, N] += bias [N] f32, in place
  virtual void add_bias(MutableTensorView x, TensorView bias) = 0;
  // out [T, I] (compute dtype) = silu(gate_up[:, :I]) * gate_up[:, I:]; gate_up [T, 2I] f32 or act
  virtual void silu_mul(TensorView gate_up, MutableTensorView out) = 0;

  // linear, whose results (rows of gate_up [T, 2I]) then go through silu_mul into act [T, I]. What is left in gate_up
  // is anything: kernels that multiply in registers do not write it.
  virtual void linear_silu_mul(std::span<const LinearTask> tasks, MutableTensorView gate_up, MutableTensorView act);

  // --- sampling ---

  // tokens[i] = the token that params[i] samples from row i of logits [n, vocab] f32, n being the size of both spans.
  // Waits for all calls before it. Edge  a logit of -infinity is never sampled; a row in which one is NaN or +infinity,
  // or all are -infinity: kNoToken
  virtual void pick_tokens(TensorView logits, std::span<const SampleParams> params, std::span<int32_t> tokens) = 0;

  // --- attention ---

  // Rotates pairs (2i, 2i+1) of the last `rope_dim` of each head to the step's positions, in place.
  // x [T, num_heads * head_dim] act
  virtual void rope(MutableTensorView x, int head_dim, const RopeView& table) = 0;
  // The step's tokens into their sequences' caches: of kv [T, kv_lora_rank + rope_dim] act the latent part normalised
  // with `norm` [kv_lora_rank], the key part rotated. kv may be overwritten.
  virtual void store_latents(const MlaParams& params, MutableTensorView kv, TensorView norm, float eps,
                             const RopeView& table, int layer) = 0;
  // Causal multi-head latent attention of each sequence of the step over its latent cache.
  // q [T, num_heads * (nope_dim + rope_dim)] after rope; out [T, num_heads * v_dim]; both act
  virtual void mla_attention(const MlaParams& params, const MlaWeight& weight, TensorView q, int layer,
                             MutableTensorView out) = 0;

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

  // For layers whose experts are all on this rank; null: the executor does them with the ops above.
  virtual LocalMoe* local_moe() { return nullptr; }
  // For layers whose experts are spread over devices that read each other's memory; null: the op set's device cannot.
  // Both outlive the layer.
  virtual std::unique_ptr<PeerLayer> make_peer_layer(Communicator& comm);
};

}  // namespace eps
