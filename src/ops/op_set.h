// The operations that a model needs, as one interface with one object per rank.
//
// Implementations: ops/reference (slow and simple, defines the correct results), ops/cpu and ops/cuda. All outputs are
// written in full. Inputs and outputs must not overlap unless a function is described as "in place". Views refer to the
// op set's memory unless they are described as host memory. Activations ("act") have the op set's activation dtype; the
// residual stream is f32 everywhere. Row invariance: a result row depends only on its own input row, never on the
// number or the position of the other rows. On the CPU this holds bit for bit.
//
// Calls take effect in order, but may return before they have done so; download() waits for them.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/thread_pool.h"
#include "ops/op_params.h"
#include "ops/step.h"
#include "tensor/tensor.h"

namespace eps::comm {
class Communicator;
}

namespace eps::ops {

class LocalMoe;
class PeerLayer;
class RowCollectives;

// A weight matrix [out, in] in the op set's own layout. Immutable, so ranks can share it.
class LinearWeight {
 public:
  virtual ~LinearWeight() = default;
  virtual int64_t out_features() const = 0;
  virtual int64_t in_features() const = 0;
  virtual size_t num_bytes() const = 0;
  virtual DType input_dtype() const = 0;  // the required dtype of LinearTask::x
};

// The key/value up-projection of MLA, in the forms that prefill and decoding need.
class MlaWeight {
 public:
  virtual ~MlaWeight() = default;
  virtual size_t num_bytes() const = 0;
};

enum class Precision : uint8_t {
  kCompute,  // the op set's compute dtype
  kF32,      // f32, whatever the compute dtype is (for the gate)
};

// RMS norms of each head of queries and keys, [head_dim] f32; empty: none.
struct HeadNorms {
  TensorView q = {};
  TensorView k = {};
  float eps = 0.0F;
};

// y [m, out] = x [m, in] · weightᵀ; y f32 or act
struct LinearTask {
  const LinearWeight* weight = nullptr;
  TensorView x;
  MutableTensorView y;
};

// The properties of a device that planning and measuring depend on.
struct DeviceSizes {
  int num_sms = 0;
  double memory_gb = 0;
  bool fuses_silu_mul = false;  // grouped gate and up projections also apply silu_mul
  int most_experts = 0;         // of a layer, and thus weights in a pool
  std::string software;         // the software on it, with versions; for display
};

// What OpSet::run_step() would do next, in the order in which the calls for a key usually follow one another.
enum class StepRun : uint8_t { kRun, kRecord, kReplay };

// Memory for weights of one shape that the experts of a layer share. Outlives the weights.
class WeightPool {
 public:
  virtual ~WeightPool() = default;
};

class OpSet {
 public:
  virtual ~OpSet() = default;

  virtual std::string description() const = 0;                    // "cpu f32 avx2, 2 threads"
  virtual DType compute_dtype() const = 0;                        // of GEMM inputs and of dispatched rows
  virtual DType activation_dtype() const { return DType::kF32; }  // of norms, projections and latent caches
  // Of the caches of grouped-query attention. They are as large as its weights in long contexts, so they have no more
  // precision than the products that read them.
  virtual DType cache_dtype() const { return compute_dtype(); }

  // The device, if it has memory of its own; null if the op set works in host memory.
  virtual const DeviceSizes* device() const { return nullptr; }
  // Must be called once by the thread that will use the op set, before its first call.
  virtual void bind_thread() const {}
  // Limits GEMMs to this many SMs from now on; 0 means all. Has no effect on devices without SMs.
  virtual void limit_sms(int /*num_sms*/) {}
  // The pool that runs the op set's loops, possibly shared with other ranks; null if there is none. Callers that do
  // other work between ops should hold a ComputingThread, so that no other thread takes their place meanwhile.
  virtual ThreadPool* thread_pool() const { return nullptr; }
  virtual DType weight_dtype(DType stored) const { return stored; }  // the packed dtype of such weights

  // --- memory ---

  virtual MemoryResource& memory() const { return host_memory(); }
  // Host memory to which download() is fastest.
  virtual MemoryResource& staging_memory() const { return host_memory(); }
  // Copies from and to host memory, which may be reused after the call. download() waits for all earlier calls.
  virtual void upload(const void* from, MutableTensorView to) const;
  virtual void download(TensorView from, void* to) const;
  virtual void copy(TensorView from, MutableTensorView to) const;  // of the same size, both in the op set's memory
  virtual void wait() const {}                                     // waits for all earlier calls
  // Returns `host` in memory that the op set can read: either the view itself or a copy in `storage`.
  virtual TensorView place(TensorView host, Buffer& storage) const;

  // --- weights ---

  // Creates a pool for `count` weights [n, k] that are then passed to pack_linear one after the other; null if the op
  // set does not use pools.
  virtual std::unique_ptr<WeightPool> make_weight_pool(int64_t /*count*/, int64_t /*n*/, int64_t /*k*/) const {
    return nullptr;
  }

  // Packs parts [N_i, K] in host memory, stacked along N, into `pool` if it is given. The parts may be f32, bf16 or f16
  // and are not referenced afterwards.
  virtual std::unique_ptr<LinearWeight> pack_linear(std::span<const TensorView> parts, Precision precision,
                                                    WeightPool* pool) const = 0;
  std::unique_ptr<LinearWeight> pack_linear(std::span<const TensorView> parts, Precision precision) const {
    return pack_linear(parts, precision, nullptr);
  }
  // Packs kv_b [num_heads * (nope_dim + v_dim), kv_lora_rank], which is in host memory.
  virtual std::unique_ptr<MlaWeight> pack_mla(const TensorView& kv_b, const MlaParams& params) const = 0;

  // Called before the weights of a model are read.
  //
  // Errors  kUsage if the op set has no kernel for attention of these dimensions
  virtual void require_supported(const GqaParams& /*params*/) const {}

  // --- steps ---

  // Sets the step for the following calls of embed, rope, store_latents, mla_attention, store_keys and gqa_attention.
  virtual void begin_step(const StepInputs& step) = 0;
  // Runs `body`, which may only call ops of this op set. Apart from the data of begin_step, its calls must depend only
  // on `key`: an op set may record them once and replay the recording. `body` is then not run, so its effects on the
  // host must not be relied on. Returns whether it ran. `before_launch` is called before a recording is launched, also
  // if it was just made: ranks whose steps wait for each other on the device let each other finish recording.
  virtual bool run_step(int64_t /*key*/, const std::function<void()>& body,
                        const std::function<void()>& /*before_launch*/) {
    body();
    return true;
  }
  bool run_step(int64_t key, const std::function<void()>& body) {
    return run_step(key, body, [] {});
  }
  // What run_step() will do with this key, unless memory is allocated or freed before the call.
  virtual StepRun next_run(int64_t /*key*/) const { return StepRun::kRun; }

  // --- dense ops ---

  // out[i] = table[ids[i]]; table [V, H] f32/bf16/f16, out [T, H] f32
  virtual void embed(TensorView table, MutableTensorView out) = 0;
  // out = x / rms(x) * weight per row; x, out [T, H] f32 or act, weight [H] f32. out may be x.
  virtual void rms_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) = 0;
  // hidden += delta (empty: nothing), then out = rms_norm(hidden); hidden [T, H] f32, delta and out act
  virtual void add_rms_norm(MutableTensorView hidden, TensorView delta, TensorView weight, float eps,
                            MutableTensorView out);
  // out = (x - mean(x)) / sqrt(variance(x) + eps) * weight per row; x, out [T, H] f32 or act, weight [H] f32. out may
  // be x.
  virtual void layer_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) = 0;
  // Computes all tasks, in any order or concurrently. m = 0 is allowed.
  virtual void linear(std::span<const LinearTask> tasks) = 0;
  // out (compute dtype) = x (f32), same shape
  virtual void to_compute(TensorView x, MutableTensorView out) = 0;
  // x (f32) += y (f32 or act), in place
  virtual void add(MutableTensorView x, TensorView y) = 0;
  // x [T, N] += bias [N] f32, in place
  virtual void add_bias(MutableTensorView x, TensorView bias) = 0;
  // x = min(max(x, -limit), limit), in place; x act
  virtual void clamp(MutableTensorView x, float limit) = 0;
  // out [T, I] (compute dtype) = silu(gate_up[:, :I]) * gate_up[:, I:]; gate_up [T, 2I] f32 or act
  virtual void silu_mul(TensorView gate_up, MutableTensorView out) = 0;
  // The same with the activation of `params`; gate_up f32
  virtual void clamped_swiglu(const SwigluParams& params, TensorView gate_up, MutableTensorView out) = 0;
  // rows[i] *= sigmoid(logits[i]), in place; rows [T, H] f32, logits [T, 1] f32
  virtual void scale_by_sigmoid(MutableTensorView rows, TensorView logits) = 0;

  // Like linear, but also applies silu_mul to the results (rows of gate_up [T, 2I]) and writes act [T, I]. The contents
  // of gate_up are undefined afterwards, because kernels that apply silu_mul in registers do not write it.
  virtual void linear_silu_mul(std::span<const LinearTask> tasks, MutableTensorView gate_up, MutableTensorView act);

  // --- sampling ---

  // tokens[i] = the token sampled with params[i] from row i of logits [n, vocab] f32, where n is the size of both
  // spans. Waits for all earlier calls. Edge  a token with a logit of -infinity is never sampled; the result is
  // kNoToken if a logit in the row is NaN or
  //       +infinity, or if all are -infinity
  virtual void pick_tokens(TensorView logits, std::span<const SampleParams> params, std::span<int32_t> tokens) = 0;

  // --- attention ---

  // Rotates pairs of `rope_dim` elements of each head to the step's positions, in place; the table's layout says which
  // elements and pairs. x [T, num_heads * head_dim] act
  virtual void rope(MutableTensorView x, int head_dim, const RopeView& table) = 0;
  // Appends the step's tokens to the caches of their sequences. kv [T, kv_lora_rank + rope_dim] act: the latent part is
  // normalised with `norm` [kv_lora_rank], the key part is rotated. kv may be overwritten.
  virtual void store_latents(const MlaParams& params, MutableTensorView kv, TensorView norm, float eps,
                             const RopeView& table, int layer) = 0;
  // Computes causal multi-head latent attention of each sequence of the step over its latent cache.
  // q [T, num_heads * (nope_dim + rope_dim)] after rope; out [T, num_heads * v_dim]; both act
  virtual void mla_attention(const MlaParams& params, const MlaWeight& weight, TensorView q, int layer,
                             MutableTensorView out) = 0;

  // Appends the step's tokens to the caches of their sequences, in cache_dtype().
  // k, v [T, num_kv_heads * head_dim] act, k normalised and rotated
  virtual void store_keys(const GqaParams& params, TensorView k, TensorView v, int layer) = 0;
  // Normalises each head of q and k [T, heads * head_dim] act with `norms`, rotates them to the step's positions in
  // place, and appends k and v as store_keys() does. The contents of k are undefined afterwards.
  virtual void store_heads(const GqaParams& params, const HeadNorms& norms, const RopeView& table, MutableTensorView q,
                           MutableTensorView k, TensorView v, int layer);
  // Computes causal grouped-query attention of each sequence of the step over its cache. A token attends to the last
  // `window` positions, itself included (0: all). `sinks` [num_heads] f32: a further logit of each head, which takes
  // part in the softmax with a value of zero; empty: none.
  // q [T, num_heads * head_dim] after rope; out as q; both act
  virtual void gqa_attention(const GqaParams& params, int64_t window, TensorView sinks, TensorView q, int layer,
                             MutableTensorView out) = 0;

  // --- MoE ---

  // Turns logits [T, E] into the top k experts and their weights. `correction` [E] f32 if params say so, else empty.
  // topk_idx [T, K] i32, topk_weight [T, K] f32, best first. Ties go to the lower index.
  virtual void gate(const GateParams& params, TensorView logits, TensorView correction, MutableTensorView topk_idx,
                    MutableTensorView topk_weight) = 0;
  // out[i] = the row at sources[i], which has out's width and dtype
  virtual void gather_rows(std::span<const std::byte* const> sources, MutableTensorView out) = 0;
  // rows[i] *= weight[i], in place
  virtual void scale_rows(MutableTensorView rows, std::span<const float> weight) = 0;
  // dst += src for each pair; rows have `width` elements. Pairs with the same dst are added in order, others may be
  // added concurrently.
  virtual void add_rows(std::span<const RowPair> pairs, int64_t width) = 0;

  // The implementation of layers whose experts are all on this rank; null: the executor runs them with the ops above.
  virtual LocalMoe* local_moe() { return nullptr; }
  // Creates the implementation of layers whose experts are spread over devices that can access each other's memory;
  // null if the device does not support that. The op set and `comm` outlive it.
  virtual std::unique_ptr<PeerLayer> make_peer_layer(comm::Communicator& comm);
  // Creates exchanges of rows between ranks on such devices; null if rows are in host memory. As make_peer_layer().
  virtual std::unique_ptr<RowCollectives> make_row_collectives(comm::Communicator& comm);
};

}  // namespace eps::ops
