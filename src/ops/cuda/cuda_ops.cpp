#include "ops/cuda/cuda_ops.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "ops/cuda/cublas_gemm.h"
#include "ops/cuda/cuda_context.h"
#include "ops/cuda/cuda_device.h"
#include "ops/cuda/cuda_local_moe.h"
#include "ops/cuda/cuda_weights.h"
#include "ops/cuda/grouped_gemm.h"
#include "ops/cuda/kernels/gemm/small_linear.h"
#include "ops/cuda/kernels/router/gate.h"
#include "ops/cuda/kernels/rows/elementwise.h"
#include "ops/cuda/kernels/rows/permute.h"
#include "ops/cuda/kernels/rows/pointer_rows.h"
#include "ops/cuda/kernels/sampling/pick_token.h"
#include "ops/cuda/mla_attention.h"
#include "ops/cuda/step_graphs.h"
#include "ops/cuda/step_state.h"

namespace eps {
namespace cuda {
namespace {

const nv_bf16* bf16_of(const TensorView& view) {
  EPS_CHECK(view.dtype() == DType::kBF16, "a {} tensor where bf16 is wanted", to_string(view.dtype()));
  return static_cast<const nv_bf16*>(view.data());
}
nv_bf16* bf16_of(const MutableTensorView& view) {
  EPS_CHECK(view.dtype() == DType::kBF16, "a {} tensor where bf16 is wanted", to_string(view.dtype()));
  return static_cast<nv_bf16*>(view.data());
}

class CudaOps final : public OpSet {
 public:
  explicit CudaOps(const DeviceInfo& device)
      : device_(device),
        stream_(make_stream()),
        uploader_(pinned_, stream_.get()),
        blas_(stream_.get(), memory_),
        grouped_(stream_.get(), memory_),
        step_(memory_, pinned_, stream_.get()),
        graphs_(memory_, stream_.get()),
        local_moe_(memory_, blas_, grouped_, stream_.get()),
        list_(memory_),
        draws_(memory_),
        tokens_(memory_),
        attention_workspace_(memory_) {
    // More rows than steps that are recorded have: memory that comes later would have them recorded anew.
    constexpr size_t kRows = 256;
    draws_.reserve(kRows * sizeof(TokenDraw));
    tokens_.reserve(kRows * sizeof(int32_t));
  }

  std::string description() const override { return fmt::format("cuda bf16 ({})", device_.name); }
  DType compute_dtype() const override { return DType::kBF16; }
  DType activation_dtype() const override { return DType::kBF16; }

  DType weight_dtype(DType) const override { return DType::kBF16; }
  const DeviceSizes* device() const override { return &device_.sizes; }
  void limit_sms(int num_sms) override {
    num_sms_ = num_sms;
    grouped_.limit_sms(num_sms);
    local_moe_.limit_sms(num_sms);
  }

  // --- memory ---

  MemoryResource& memory() const override { return memory_; }

  MemoryResource& staging_memory() const override { return pinned_; }

  void upload(const void* from, MutableTensorView to) const override {
    uploader_.upload(from, to.num_bytes(), to.data());
  }

  void download(TensorView from, void* to) const override {
    EPS_CUDA(cudaMemcpyAsync(to, from.data(), from.num_bytes(), cudaMemcpyDeviceToHost, stream_.get()));
    wait();
  }

  void copy(TensorView from, MutableTensorView to) const override {
    EPS_CHECK_EQ(from.num_bytes(), to.num_bytes());
    EPS_CUDA(cudaMemcpyAsync(to.data(), from.data(), from.num_bytes(), cudaMemcpyDeviceToDevice, stream_.get()));
  }

  void wait() const override { EPS_CUDA(cudaStreamSynchronize(stream_.get())); }

  // --- weights ---

  std::unique_ptr<WeightPool> make_weight_pool(int64_t count, int64_t n, int64_t k) const override {
    constexpr int64_t kMost = std::min(kMaxGateExperts, kMaxPermuteExperts);
    if (count > kMost) {
      fail(ErrorKind::kUsage, "device",
           {.what = "more experts than its kernels sort by",
            .got = std::to_string(count),
            .wanted = fmt::format("at most {}", kMost),
            .hint = "`device` cpu"});
    }
    return std::make_unique<CudaWeightPool>(memory_, count, n, k);
  }

  using OpSet::pack_linear;
  std::unique_ptr<LinearWeight> pack_linear(std::span<const TensorView> parts, Precision precision,
                                            WeightPool* pool) const override {
    return pack_cuda_linear(parts, precision == Precision::kF32, static_cast<CudaWeightPool*>(pool), memory_,
                            uploader_);
  }

  std::unique_ptr<MlaWeight> pack_mla(const TensorView& kv_b, const MlaParams& params) const override {
    EPS_CHECK_EQ(kv_b.dim(0), int64_t{params.num_heads} * (params.nope_dim + params.v_dim));
    EPS_CHECK_EQ(kv_b.dim(1), params.kv_lora_rank);
    if (!MlaAttention::supported(params)) {
      fail(ErrorKind::kUsage, "device",
           {.what = "attention of sizes that no kernel takes",
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

  // --- steps ---

  void begin_step(const StepInputs& step) override { step_.begin(step); }
  bool run_step(int64_t key, const std::function<void()>& body) override { return graphs_.run(key, body); }

  // --- dense ops ---

  void embed(TensorView table, MutableTensorView out) override {
    const int64_t n = out.dim(0);
    const int64_t width = out.dim(1);
    float* y = out.as<float>();
    switch (table.dtype()) {
      case DType::kBF16: return cuda::embed(bf16_of(table), step_.ids(), n, static_cast<int>(width), y, stream_.get());
      case DType::kF32: return embed_f32(table.as<const float>(), step_.ids(), n, width, y, stream_.get());
      case DType::kF16: return embed_f16(table.data(), step_.ids(), n, width, y, stream_.get());
      default: EPS_CHECK(false, "a table of {}", to_string(table.dtype()));
    }
  }

  void rms_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) override {
    const int64_t rows = x.dim(0);
    const int64_t width = x.dim(1);
    const auto run = [&](const auto* in, auto* y) {
      cuda::rms_norm(in, width, weight.as<const float>(), eps, rows, static_cast<int>(width), y, width, stream_.get());
    };
    if (x.dtype() == DType::kF32) {
      out.dtype() == DType::kF32 ? run(x.as<const float>(), out.as<float>()) : run(x.as<const float>(), bf16_of(out));
    } else {
      out.dtype() == DType::kF32 ? run(bf16_of(x), out.as<float>()) : run(bf16_of(x), bf16_of(out));
    }
  }

  void add_rms_norm(MutableTensorView hidden, TensorView delta, TensorView weight, float eps,
                    MutableTensorView out) override {
    cuda::add_rms_norm(hidden.as<float>(), delta ? bf16_of(delta) : nullptr, weight.as<const float>(), eps,
                       hidden.dim(0), static_cast<int>(hidden.dim(1)), bf16_of(out), stream_.get());
  }

  void linear(std::span<const LinearTask> tasks) override {
    if (const auto grouped = find_grouped(tasks)) {
      return run_grouped(*grouped, bf16_of(tasks.front().x), bf16_of(tasks.front().y), GroupedEpilogue::kStore);
    }
    if (tasks.size() == 2 && run_small_pair(tasks[0], tasks[1])) return;
    for (const LinearTask& task : tasks) run_dense(task);
  }

  void linear_silu_mul(std::span<const LinearTask> tasks, MutableTensorView gate_up, MutableTensorView act) override {
    if (const auto grouped = find_grouped(tasks)) {
      return run_grouped(*grouped, bf16_of(tasks.front().x), bf16_of(act), GroupedEpilogue::kSiluMul);
    }
    OpSet::linear_silu_mul(tasks, gate_up, act);
  }

  void to_compute(TensorView x, MutableTensorView out) override {
    convert_to_bf16(x.as<const float>(), x.numel(), bf16_of(out), stream_.get());
  }

  void add(MutableTensorView x, TensorView y) override {
    if (y.dtype() == DType::kF32) {
      cuda::add(x.as<float>(), y.as<const float>(), x.numel(), stream_.get());
    } else {
      cuda::add(x.as<float>(), bf16_of(y), x.numel(), stream_.get());
    }
  }

  void add_bias(MutableTensorView x, TensorView bias) override {
    const auto width = static_cast<int>(x.dim(1));
    if (x.dtype() == DType::kF32) {
      cuda::add_bias(x.as<float>(), bias.as<const float>(), x.dim(0), width, stream_.get());
    } else {
      cuda::add_bias(bf16_of(x), bias.as<const float>(), x.dim(0), width, stream_.get());
    }
  }

  void silu_mul(TensorView gate_up, MutableTensorView out) override {
    const auto width = static_cast<int>(out.dim(1));
    if (gate_up.dtype() == DType::kF32) {
      cuda::silu_mul(gate_up.as<const float>(), out.dim(0), width, bf16_of(out), stream_.get());
    } else {
      cuda::silu_mul(bf16_of(gate_up), out.dim(0), width, bf16_of(out), stream_.get());
    }
  }

  // --- sampling ---

  void pick_tokens(TensorView logits, std::span<const TokenDraw> draws, std::span<int32_t> tokens) override {
    const int64_t n = std::ssize(draws);
    EPS_CHECK_EQ(logits.dim(0), n);
    EPS_CHECK_EQ(tokens.size(), draws.size());
    if (n == 0) return;
    const MutableTensorView on_device = draws_.view(DType::kU8, {static_cast<int64_t>(draws.size_bytes())});
    upload(draws.data(), on_device);
    const MutableTensorView picked = tokens_.view(DType::kI32, {n});
    cuda::pick_tokens(logits.as<const float>(), static_cast<const TokenDraw*>(on_device.data()), n, logits.dim(1),
                      picked.as<int32_t>(), stream_.get());
    download(picked, tokens.data());
  }

  // --- attention ---

  void rope(MutableTensorView x, int head_dim, const RopeView& table) override {
    cuda::rope(bf16_of(x), x.dim(0), static_cast<int>(x.dim(1) / head_dim), head_dim, table.rope_dim, table_of(table),
               step_.positions(), stream_.get());
  }

  void store_latents(const MlaParams& params, MutableTensorView kv, TensorView norm, float eps, const RopeView& table,
                     int layer) override {
    StoreLatentsParams p;
    p.kv = bf16_of(kv);
    p.kv_row_stride = kv.dim(1);
    p.rows = kv.dim(0);
    p.lora = params.kv_lora_rank;
    p.rope_dim = params.rope_dim;
    p.layer = layer;
    p.norm_weight = norm.as<const float>();
    p.eps = eps;
    p.table = table_of(table);
    p.sequences = step_.sequences();
    p.sequence_of_row = step_.sequence_of_token();
    cuda::store_latents(p, stream_.get());
  }

  void mla_attention(const MlaParams& params, const MlaWeight& weight, TensorView q, int layer,
                     MutableTensorView out) override {
    const auto& packed = static_cast<const CudaMla&>(weight);
    const auto sequences = step_.host_sequences();
    attention_workspace_.reserve(std::max<size_t>(1, attention_.workspace_bytes(params, sequences)));
    attention_.run(params, {packed.kv_b()}, bf16_of(q), sequences, step_.sequences(), layer, bf16_of(out),
                   attention_workspace_.data(), blas_.handle(), stream_.get());
  }

  // --- MoE ---

  void gate(const GateParams& params, TensorView logits, MutableTensorView topk_idx,
            MutableTensorView topk_weight) override {
    gate_topk(logits.as<const float>(), gate_config(params), logits.dim(0), topk_idx.as<int32_t>(),
              topk_weight.as<float>(), stream_.get());
  }

  void gather_rows(std::span<const std::byte* const> sources, MutableTensorView out) override {
    const size_t row_bytes = static_cast<size_t>(out.dim(1)) * size_of(out.dtype());
    gather_pointers(reinterpret_cast<const std::byte* const*>(to_device(sources.data(), sources.size_bytes())),
                    std::ssize(sources), row_bytes, static_cast<std::byte*>(out.data()), stream_.get());
  }

  void scale_rows(MutableTensorView rows, std::span<const float> weight) override {
    cuda::scale_rows(rows.as<float>(), reinterpret_cast<const float*>(to_device(weight.data(), weight.size_bytes())),
                     rows.dim(0), rows.dim(1), stream_.get());
  }

  void add_rows(std::span<const RowPair> pairs, int64_t width) override {
    static_assert(sizeof(RowPair) == sizeof(DeviceRowPair));
    add_pairs(reinterpret_cast<const DeviceRowPair*>(to_device(pairs.data(), pairs.size_bytes())), std::ssize(pairs),
              width, stream_.get());
  }

  LocalMoe* local_moe() override { return &local_moe_; }

 private:
  static DeviceRopeTable table_of(const RopeView& table) {
    return {table.cos.as<const float>(), table.sin.as<const float>()};
  }

  // A host list where kernels can read it; good until the next call.
  const std::byte* to_device(const void* from, size_t num_bytes) {
    list_.reserve(std::max<size_t>(1, num_bytes));
    uploader_.upload(from, num_bytes, list_.data());
    return list_.data();
  }

  // Two products of the same few rows in one launch; false where they are not that.
  bool run_small_pair(const LinearTask& a, const LinearTask& b) {
    const CudaLinear& w0 = as_cuda(*a.weight);
    const CudaLinear& w1 = as_cuda(*b.weight);
    const int64_t m = a.x.dim(0);
    if (a.x.data() != b.x.data() || m != b.x.dim(0) || m == 0 || m > kMaxSmallRows) return false;
    if (a.y.dtype() != DType::kBF16 || b.y.dtype() != DType::kBF16 || w0.low != nullptr || w1.low != nullptr)
      return false;
    small_linear_pair(bf16_of(a.x), w0.w, static_cast<int>(w0.n), bf16_of(a.y), w1.w, static_cast<int>(w1.n),
                      bf16_of(b.y), static_cast<int>(m), static_cast<int>(w0.k), stream_.get());
    return true;
  }

  void run_dense(const LinearTask& task) {
    const CudaLinear& weight = as_cuda(*task.weight);
    const int64_t m = task.x.dim(0);
    EPS_CHECK_EQ(task.x.dim(1), weight.k);
    EPS_CHECK_EQ(task.y.dim(1), weight.n);
    if (m == 0) return;
    const nv_bf16* x = bf16_of(task.x);
    if (m <= kMaxRouterRows && task.y.dtype() == DType::kF32 && weight.n <= kMaxGateExperts && weight.low == nullptr) {
      small_router(x, weight.w, static_cast<int>(weight.n), static_cast<int>(m), static_cast<int>(weight.k),
                   task.y.as<float>(), stream_.get());
      return;
    }
    if (m <= kMaxSmallRows) {
      const auto run = [&](auto* y) {
        small_linear(x, weight.w, static_cast<int>(m), static_cast<int>(weight.n), static_cast<int>(weight.k), y,
                     stream_.get());
      };
      task.y.dtype() == DType::kF32 ? run(task.y.as<float>()) : run(bf16_of(task.y));
      if (weight.low == nullptr) return;
      small_linear_add(x, weight.low, static_cast<int>(m), static_cast<int>(weight.n), static_cast<int>(weight.k),
                       task.y.as<float>(), stream_.get());
      return;
    }
    blas_.run(x, weight.w, task.y.data(), task.y.dtype(), m, weight.n, weight.k, false, num_sms_);
    if (weight.low != nullptr) {
      blas_.run(x, weight.low, task.y.data(), task.y.dtype(), m, weight.n, weight.k, true, num_sms_);
    }
  }

  // Tasks whose weights share a pool, in its order, and whose rows follow one another: what one grouped call takes.
  struct GroupedTasks {
    const CudaWeightPool* pool = nullptr;
    std::vector<int64_t> rows;  // of every group
    int64_t total = 0;
  };
  static std::optional<GroupedTasks> find_grouped(std::span<const LinearTask> tasks) {
    if (tasks.size() < 2) return std::nullopt;
    GroupedTasks out{as_cuda(*tasks.front().weight).pool, {}, 0};
    if (out.pool == nullptr) return std::nullopt;
    out.rows.assign(static_cast<size_t>(out.pool->count), 0);
    int64_t last = -1;
    for (const LinearTask& task : tasks) {
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

  void run_grouped(const GroupedTasks& tasks, const nv_bf16* x, nv_bf16* y, GroupedEpilogue epilogue) {
    std::vector<int32_t> offsets(tasks.rows.size() + 1, 0);
    for (size_t g = 0; g < tasks.rows.size(); ++g) offsets[g + 1] = offsets[g] + static_cast<int32_t>(tasks.rows[g]);
    grouped_.run(*tasks.pool, epilogue, x, y,
                 reinterpret_cast<const int32_t*>(to_device(offsets.data(), offsets.size() * sizeof(int32_t))),
                 tasks.total, tasks.rows);
  }

  DeviceInfo device_;
  DeviceMemory& memory_ = DeviceMemory::get();
  mutable PinnedMemory pinned_;
  StreamPtr stream_;
  mutable Uploader uploader_;
  CublasGemm blas_;
  GroupedGemm grouped_;
  StepState step_;
  StepGraphs graphs_;
  MlaAttention attention_;
  CudaLocalMoe local_moe_;
  int num_sms_ = 0;  // that GEMMs may use; 0: all
  Buffer list_;
  Buffer draws_, tokens_;  // of pick_tokens
  Buffer attention_workspace_;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<OpSet> make_cuda_ops(int device) { return std::make_unique<cuda::CudaOps>(cuda::open_device(device)); }

}  // namespace eps
