#include "ops/cuda/cuda_ops.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "base/error.h"
#include "ops/cuda/cublas_gemm.h"
#include "ops/cuda/cuda_context.h"
#include "ops/cuda/cuda_device.h"
#include "ops/cuda/cuda_local_moe.h"
#include "ops/cuda/cuda_weights.h"
#include "ops/cuda/elements.h"
#include "ops/cuda/gqa_attention.h"
#include "ops/cuda/grouped_gemm.h"
#include "ops/cuda/kernels/router/gate.h"
#include "ops/cuda/kernels/rows/elementwise.h"
#include "ops/cuda/kernels/rows/norm.h"
#include "ops/cuda/kernels/rows/pointer_rows.h"
#include "ops/cuda/kernels/rows/rope.h"
#include "ops/cuda/kernels/rows/sort_rows.h"
#include "ops/cuda/kernels/sampling/pick_token.h"
#include "ops/cuda/linear_dispatch.h"
#include "ops/cuda/mla_attention.h"
#include "ops/cuda/peer_layer.h"
#include "ops/cuda/row_collectives.h"
#include "ops/cuda/step_graphs.h"
#include "ops/cuda/step_state.h"

namespace eps::cuda {
namespace {

class CudaOps final : public ops::OpSet {
 public:
  explicit CudaOps(const DeviceInfo& device)
      : device_(device),
        stream_(make_stream()),
        uploader_(pinned_, stream_.get()),
        blas_(stream_.get(), memory_),
        grouped_(stream_.get(), memory_),
        step_(memory_, pinned_, stream_.get()),
        graphs_(memory_, stream_.get()),
        mla_(sdpa_plans_),
        gqa_(sdpa_plans_, memory_),
        list_(memory_, uploader_),
        linear_(blas_, grouped_, list_, stream_.get()),
        local_moe_(memory_, blas_, grouped_, stream_.get()),
        sample_params_(memory_),
        tokens_(memory_),
        attention_workspace_(memory_) {
    // More rows than recorded steps have, because a later allocation would invalidate the recordings.
    constexpr size_t kRows = 256;
    sample_params_.reserve(kRows * sizeof(ops::SampleParams));
    tokens_.reserve(kRows * sizeof(int32_t));
  }

  // Library handles must be destroyed while their GPU is current.
  ~CudaOps() override { cudaSetDevice(device_.number); }
  CudaOps(const CudaOps&) = delete;
  CudaOps& operator=(const CudaOps&) = delete;

  std::string description() const override { return fmt::format("cuda bf16 ({})", device_.name); }
  DType compute_dtype() const override { return DType::kBF16; }
  DType activation_dtype() const override { return DType::kBF16; }

  DType weight_dtype(DType) const override { return DType::kBF16; }
  const ops::DeviceSizes* device() const override { return &device_.sizes; }
  void bind_thread() const override { EPS_CUDA(cudaSetDevice(device_.number)); }
  void limit_sms(int num_sms) override {
    grouped_.limit_sms(num_sms);
    linear_.limit_sms(num_sms);
    local_moe_.limit_sms(num_sms);
  }

  // --- memory ---

  MemoryResource& memory() const override { return memory_; }

  MemoryResource& staging_memory() const override { return pinned_; }

  void upload(const void* from, MutableTensorView to) const override {
    check_not_recording("upload");
    uploader_.upload(from, to.num_bytes(), to.data());
  }

  void download(TensorView from, void* to) const override {
    check_not_recording("download");
    EPS_CUDA(cudaMemcpyAsync(to, from.data(), from.num_bytes(), cudaMemcpyDeviceToHost, stream_.get()));
    wait();
  }

  void copy(TensorView from, MutableTensorView to) const override {
    EPS_CHECK_EQ(from.num_bytes(), to.num_bytes());
    EPS_CUDA(cudaMemcpyAsync(to.data(), from.data(), from.num_bytes(), cudaMemcpyDeviceToDevice, stream_.get()));
  }

  void wait() const override {
    check_not_recording("wait");
    EPS_CUDA(cudaStreamSynchronize(stream_.get()));
  }

  // --- weights ---

  std::unique_ptr<ops::WeightPool> make_weight_pool(int64_t count, int64_t n, int64_t k) const override {
    if (count > kMostExperts) {
      fail(ErrorKind::kUsage, "device",
           {.what = "more experts than its kernels support",
            .got = std::to_string(count),
            .wanted = fmt::format("at most {}", kMostExperts),
            .hint = "`device` cpu"});
    }
    return std::make_unique<CudaWeightPool>(memory_, count, n, k);
  }

  using ops::OpSet::pack_linear;
  std::unique_ptr<ops::LinearWeight> pack_linear(std::span<const TensorView> parts, ops::Precision precision,
                                                 ops::WeightPool* pool) const override {
    return pack_cuda_linear(parts, precision == ops::Precision::kF32, static_cast<CudaWeightPool*>(pool), memory_,
                            uploader_);
  }

  std::unique_ptr<ops::MlaWeight> pack_mla(const TensorView& kv_b, const ops::MlaParams& params) const override {
    EPS_CHECK_EQ(kv_b.dim(0), int64_t{params.num_heads} * (params.nope_dim + params.v_dim));
    EPS_CHECK_EQ(kv_b.dim(1), params.kv_lora_rank);
    if (!MlaAttention::supported(params)) {
      fail(ErrorKind::kUsage, "device",
           {.what = "attention of sizes that no kernel supports",
            .got = fmt::format("a latent of {} and a rotated key of {}", params.kv_lora_rank, params.rope_dim),
            .wanted = "1536 together at most",
            .hint = "`device` cpu"});
    }
    auto out = std::make_unique<CudaMla>();
    out->memory = Buffer(memory_);
    out->rows = kv_b.dim(0);
    out->lora = kv_b.dim(1);
    const MutableTensorView to = out->memory.view(DType::kBF16, kv_b.shape());
    uploader_.upload_as_bf16(kv_b, bf16_of(to));
    return out;
  }

  void require_supported(const ops::GqaParams& params) const override {
    if (params.head_dim <= GqaAttention::kMaxHeadDim) return;
    fail(ErrorKind::kUsage, "device",
         {.what = "attention of a size that no kernel supports",
          .got = fmt::format("heads of {}", params.head_dim),
          .wanted = fmt::format("at most {}", GqaAttention::kMaxHeadDim),
          .hint = "`device` cpu"});
  }

  // --- steps ---

  void begin_step(const ops::StepInputs& step) override { step_.begin(step); }
  using ops::OpSet::run_step;
  bool run_step(int64_t key, const std::function<void()>& body, const std::function<void()>& before_launch) override {
    return graphs_.run(key, body, before_launch);
  }
  ops::StepRun next_run(int64_t key) const override { return graphs_.next_run(key); }

  // --- dense ops ---

  void embed(TensorView table, MutableTensorView out) override {
    const auto run = [&]<typename T>(const T* rows) {
      launch_embed_tokens<T>({.table = rows,
                              .ids = step_.ids(),
                              .n = out.dim(0),
                              .width = static_cast<int>(out.dim(1)),
                              .out = out.as<float>()},
                             stream_.get());
    };
    if (table.dtype() == DType::kF16) return run(static_cast<const __half*>(table.data()));
    visit_elements(table, run);
  }

  void rms_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) override {
    visit_norm(x, weight, eps, out,
               [this]<typename In, typename Out>(const NormParams<In, Out>& p) { launch_rms_norm(p, stream_.get()); });
  }

  void add_rms_norm(MutableTensorView hidden, TensorView delta, TensorView weight, float eps,
                    MutableTensorView out) override {
    launch_add_rms_norm({.hidden = hidden.as<float>(),
                         .delta = delta ? bf16_of(delta) : nullptr,
                         .weight = weight.as<const float>(),
                         .eps = eps,
                         .rows = hidden.dim(0),
                         .width = static_cast<int>(hidden.dim(1)),
                         .out = bf16_of(out)},
                        stream_.get());
  }

  void layer_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) override {
    visit_norm(x, weight, eps, out, [this]<typename In, typename Out>(const NormParams<In, Out>& p) {
      launch_layer_norm(p, stream_.get());
    });
  }

  void linear(std::span<const ops::LinearTask> tasks) override { linear_.run(tasks); }

  void linear_silu_mul(std::span<const ops::LinearTask> tasks, MutableTensorView gate_up,
                       MutableTensorView act) override {
    if (!linear_.run_silu_mul(tasks, act)) ops::OpSet::linear_silu_mul(tasks, gate_up, act);
  }

  void to_compute(TensorView x, MutableTensorView out) override {
    launch_convert_to_bf16(x.as<const float>(), x.numel(), bf16_of(out), stream_.get());
  }

  void add(MutableTensorView x, TensorView y) override {
    visit_elements(y, [&](const auto* in) { launch_add(x.as<float>(), in, x.numel(), stream_.get()); });
  }

  void add_bias(MutableTensorView x, TensorView bias) override {
    visit_elements(x, [&](auto* rows) {
      launch_add_bias(rows, bias.as<const float>(), x.dim(0), static_cast<int>(x.dim(1)), stream_.get());
    });
  }

  void silu_mul(TensorView gate_up, MutableTensorView out) override { clamped_swiglu({}, gate_up, out); }

  void clamped_swiglu(const ops::SwigluParams& params, TensorView gate_up, MutableTensorView out) override {
    visit_elements(gate_up, [&]<typename In>(const In* in) {
      launch_swiglu<In>({.gate_up = in,
                         .rows = out.dim(0),
                         .width = static_cast<int>(out.dim(1)),
                         .out = bf16_of(out),
                         .swiglu = params},
                        stream_.get());
    });
  }

  void clamp(MutableTensorView x, float limit) override {
    visit_elements(x, [&](auto* values) { launch_clamp(values, limit, x.numel(), stream_.get()); });
  }

  void scale_by_sigmoid(MutableTensorView rows, TensorView logits) override {
    visit_elements(rows, [&](auto* values) {
      launch_scale_by_sigmoid(values, logits.as<const float>(), rows.dim(0), static_cast<int>(rows.dim(1)),
                              stream_.get());
    });
  }

  // --- sampling ---

  void pick_tokens(TensorView logits, std::span<const ops::SampleParams> params, std::span<int32_t> tokens) override {
    check_not_recording("pick_tokens");
    const int64_t n = std::ssize(params);
    EPS_CHECK_EQ(logits.dim(0), n);
    EPS_CHECK_EQ(tokens.size(), params.size());
    if (n == 0) return;
    const MutableTensorView on_device = sample_params_.view(DType::kU8, {static_cast<int64_t>(params.size_bytes())});
    upload(params.data(), on_device);
    const MutableTensorView picked = tokens_.view(DType::kI32, {n});
    launch_pick_tokens({.logits = logits.as<const float>(),
                        .params = static_cast<const ops::SampleParams*>(on_device.data()),
                        .rows = n,
                        .vocab = logits.dim(1),
                        .tokens = picked.as<int32_t>()},
                       stream_.get());
    download(picked, tokens.data());
  }

  // --- attention ---

  void rope(MutableTensorView x, int head_dim, const ops::RopeView& table) override {
    launch_rotate_heads({.x = bf16_of(x),
                         .rows = x.dim(0),
                         .heads = static_cast<int>(x.dim(1) / head_dim),
                         .head_dim = head_dim,
                         .rope_dim = table.rope_dim,
                         .table = table_of(table),
                         .positions = step_.positions()},
                        stream_.get());
  }

  void store_latents(const ops::MlaParams& params, MutableTensorView kv, TensorView norm, float eps,
                     const ops::RopeView& table, int layer) override {
    launch_store_latents({.kv = bf16_of(kv),
                          .kv_row_stride = kv.dim(1),
                          .rows = kv.dim(0),
                          .lora = params.kv_lora_rank,
                          .rope_dim = params.rope_dim,
                          .layer = layer,
                          .norm_weight = norm.as<const float>(),
                          .eps = eps,
                          .table = table_of(table),
                          .sequences = step_.sequences(),
                          .sequence_of_row = step_.sequence_of_token()},
                         stream_.get());
  }

  void mla_attention(const ops::MlaParams& params, const ops::MlaWeight& weight, TensorView q, int layer,
                     MutableTensorView out) override {
    const auto& packed = static_cast<const CudaMla&>(weight);
    const auto sequences = step_.host_sequences();
    attention_workspace_.reserve(std::max<size_t>(1, mla_.workspace_bytes(params, sequences)));
    mla_.run(params, {packed.kv_b()}, bf16_of(q), sequences, step_.sequences(), layer, bf16_of(out),
             attention_workspace_.data(), blas_.handle(), stream_.get());
  }

  void store_keys(const ops::GqaParams& params, TensorView k, TensorView v, int layer) override {
    launch_store_heads({.k = bf16_of(k),
                        .v = bf16_of(v),
                        .rows = k.dim(0),
                        .num_heads = params.num_heads,
                        .num_kv_heads = params.num_kv_heads,
                        .head_dim = params.head_dim,
                        .layer = layer,
                        .sequences = step_.sequences(),
                        .sequence_of_row = step_.sequence_of_token()},
                       stream_.get());
  }

  void store_heads(const ops::GqaParams& params, const ops::HeadNorms& norms, const ops::RopeView& table,
                   MutableTensorView q, MutableTensorView k, TensorView v, int layer) override {
    launch_store_heads({.q = bf16_of(q),
                        .k = bf16_of(k),
                        .v = bf16_of(v),
                        .rows = k.dim(0),
                        .num_heads = params.num_heads,
                        .num_kv_heads = params.num_kv_heads,
                        .head_dim = params.head_dim,
                        .q_norm = norms.q.as<const float>(),
                        .k_norm = norms.k.as<const float>(),
                        .eps = norms.eps,
                        .rope_dim = table.rope_dim,
                        .table = table_of(table),
                        .positions = step_.positions(),
                        .layer = layer,
                        .sequences = step_.sequences(),
                        .sequence_of_row = step_.sequence_of_token()},
                       stream_.get());
  }

  void gqa_attention(const ops::GqaParams& params, int64_t window, TensorView sinks, TensorView q, int layer,
                     MutableTensorView out) override {
    const auto sequences = step_.host_sequences();
    const GqaCall call{.dims = to_gqa_dims(params),
                       .window = window,
                       .sinks = sinks.as<const float>(),
                       .layer = layer,
                       .q = bf16_of(q),
                       .out = bf16_of(out)};
    attention_workspace_.reserve(std::max<size_t>(1, gqa_.workspace_bytes(call, sequences, stream_.get())));
    gqa_.run(call, sequences, step_.sequences(), attention_workspace_.data(), stream_.get());
  }

  // --- MoE ---

  void gate(const ops::GateParams& params, TensorView logits, TensorView correction, MutableTensorView topk_idx,
            MutableTensorView topk_weight) override {
    launch_select_experts({.logits = logits.as<const float>(),
                           .correction = correction.as<const float>(),
                           .gate = params,
                           .rows = logits.dim(0),
                           .idx = topk_idx.as<int32_t>(),
                           .weight = topk_weight.as<float>()},
                          stream_.get());
  }

  void gather_rows(std::span<const std::byte* const> sources, MutableTensorView out) override {
    check_not_recording("gather_rows");
    launch_gather_pointers({.sources = upload_list<const std::byte* const>(sources),
                            .n = std::ssize(sources),
                            .row_bytes = static_cast<size_t>(out.dim(1)) * size_of(out.dtype()),
                            .out = static_cast<std::byte*>(out.data())},
                           stream_.get());
  }

  void scale_rows(MutableTensorView rows, std::span<const float> weight) override {
    check_not_recording("scale_rows");
    launch_scale_rows(
        {.rows = rows.as<float>(), .weight = upload_list<const float>(weight), .n = rows.dim(0), .width = rows.dim(1)},
        stream_.get());
  }

  void add_rows(std::span<const ops::RowPair> pairs, int64_t width) override {
    check_not_recording("add_rows");
    static_assert(sizeof(ops::RowPair) == sizeof(DeviceRowPair));
    launch_add_row_pairs({.pairs = upload_list<const DeviceRowPair>(pairs), .n = std::ssize(pairs), .width = width},
                         stream_.get());
  }

  ops::LocalMoe* local_moe() override { return &local_moe_; }

  std::unique_ptr<ops::PeerLayer> make_peer_layer(comm::Communicator& comm) override {
    return std::make_unique<CudaPeerLayer>(comm, memory_, blas_, grouped_, stream_.get());
  }

  std::unique_ptr<ops::RowCollectives> make_row_collectives(comm::Communicator& comm) override {
    return std::make_unique<CudaRowCollectives>(comm, stream_.get());
  }

 private:
  // Calls `launch` with the parameters of a norm, in the types of x and out.
  template <typename Launch>
  static void visit_norm(TensorView x, TensorView weight, float eps, MutableTensorView out, const Launch& launch) {
    visit_elements(x, [&]<typename In>(const In* in) {
      visit_elements(out, [&]<typename Out>(Out* y) {
        launch(NormParams<In, Out>{.in = in,
                                   .in_row_stride = x.dim(1),
                                   .weight = weight.as<const float>(),
                                   .eps = eps,
                                   .rows = x.dim(0),
                                   .width = static_cast<int>(x.dim(1)),
                                   .out = y,
                                   .out_row_stride = x.dim(1)});
      });
    });
  }

  static DeviceRopeTable table_of(const ops::RopeView& table) {
    return {table.cos.as<const float>(), table.sin.as<const float>(), table.layout};
  }

  // Copies a host list to the device as elements of the kernels' own type; valid until the next call.
  template <typename T, typename List>
  T* upload_list(const List& list) {
    return reinterpret_cast<T*>(list_.upload(std::as_bytes(list)));
  }

  DeviceInfo device_;
  DeviceMemory& memory_ = DeviceMemory::of(device_.number);
  mutable PinnedMemory pinned_;
  StreamPtr stream_;
  mutable Uploader uploader_;
  CublasGemm blas_;
  GroupedGemm grouped_;
  StepState step_;
  StepGraphs graphs_;
  SdpaPlans sdpa_plans_;
  MlaAttention mla_;
  GqaAttention gqa_;
  DeviceList list_;
  LinearDispatch linear_;
  CudaLocalMoe local_moe_;
  Buffer sample_params_, tokens_;  // of pick_tokens
  Buffer attention_workspace_;
};

}  // namespace

std::unique_ptr<ops::OpSet> make_cuda_ops(int device) { return std::make_unique<CudaOps>(open_device(device)); }

}  // namespace eps::cuda
