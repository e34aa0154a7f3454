#include "ops/cuda/mla_prefill.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "ops/cuda/kernels/attention/mla_prefill_gather.h"
#include "ops/cuda/library_check.h"
#include "ops/cuda/mla_prefill_plan.h"

namespace eps::cuda {
namespace {

constexpr size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t bucket(int64_t length) {
  constexpr uint64_t kShortest = 128;  // the height of cuDNN's query tile; plans for shorter queries are not faster
  return static_cast<int64_t>(std::bit_ceil(std::max(static_cast<uint64_t>(length), kShortest)));
}

// Sequences of equal length that is a multiple of this get an exact plan, which is 10 % faster than a ragged one.
constexpr int kExactMultiple = 256;

// Sequences that are processed together, `heads` at a time, and the layout of their workspace.
struct Part {
  std::span<const DeviceSequence> sequences;
  int heads = 0;
  int num_rows = 0;
  MlaPlanKey key;
  size_t latent = 0;  // offsets in the workspace; [num_rows, kv_lora_rank], absent for a single sequence
  size_t key_rows = 0;
  size_t value_rows = 0;
  size_t batch = 0;
  size_t attention = 0;
};

Part layout(const MlaDims& dims, std::span<const DeviceSequence> sequences, int heads) {
  Part part{.sequences = sequences, .heads = heads, .key = {}};
  int64_t q_length = 0;
  int64_t k_length = 0;
  for (const DeviceSequence& s : sequences) {
    part.num_rows += s.context;
    q_length = std::max<int64_t>(q_length, s.q_count);
    k_length = std::max<int64_t>(k_length, s.context);
  }
  const DeviceSequence& first = sequences.front();
  bool alike = first.q_count % kExactMultiple == 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    alike = alike && sequences[i].q_count == first.q_count && sequences[i].context == first.context &&
            sequences[i].q_begin == first.q_begin + static_cast<int32_t>(i) * first.q_count;
  }
  part.key = {.ragged = !alike,
              .batch = static_cast<int64_t>(std::bit_ceil(sequences.size())),
              .q_length = bucket(q_length),
              .k_length = std::max(bucket(k_length), bucket(q_length)),
              .heads = heads,
              .all_heads = dims.num_heads,
              .q_dim = dims.q_dim(),
              .v_dim = dims.v_dim,
              .scale = dims.softmax_scale};
  if (alike) {
    part.key.batch = static_cast<int64_t>(sequences.size());
    part.key.q_length = first.q_count;
    part.key.k_length = first.context;
  }
  const auto rows = static_cast<size_t>(part.num_rows);
  const auto row_bytes = [&](int columns) { return aligned(rows * static_cast<size_t>(columns) * sizeof(nv_bf16)); };
  part.key_rows = sequences.size() > 1 ? row_bytes(dims.kv_lora_rank) : 0;
  part.value_rows = part.key_rows + row_bytes(heads * dims.q_dim());
  part.batch = part.value_rows + row_bytes(heads * dims.v_dim);
  part.attention = part.batch + aligned(static_cast<size_t>(6 * part.key.batch + 4) * sizeof(int32_t));
  return part;
}

// Splits a run into parts that respect the workspace limit, down to one head of one sequence.
std::vector<Part> split_run(const MlaDims& dims, std::span<const DeviceSequence> sequences) {
  std::vector<Part> parts;
  while (!sequences.empty()) {
    // First adds sequences while all heads fit in the workspace. If not even one sequence fits with all heads, the
    // number of heads per part is reduced to a divisor of the total.
    size_t count = 1;
    while (count < sequences.size() && count < kMaxPrefillBatch &&
           layout(dims, sequences.first(count + 1), dims.num_heads).attention <= MlaPrefill::kWorkspaceLimit) {
      ++count;
    }
    int heads = dims.num_heads;
    while (heads > 1 && (dims.num_heads % heads != 0 ||
                         layout(dims, sequences.first(count), heads).attention > MlaPrefill::kWorkspaceLimit)) {
      --heads;
    }
    parts.push_back(layout(dims, sequences.first(count), heads));
    sequences = sequences.subspan(count);
  }
  return parts;
}

// rows [num_rows, num_heads, stride] (the first `columns` of each head) = latent · weightᵀ; `weight` points to its
// first head.
void expand(const MlaDims& dims, cublasHandle_t blas, const nv_bf16* latent, int num_rows, const nv_bf16* weight,
            int columns, int stride, int num_heads, nv_bf16* rows) {
  const float one = 1.0F;
  const float zero = 0.0F;
  // One product per head, so that keys are written next to their rotated part and values into a separate buffer.
  EPS_CUBLAS(cublasGemmStridedBatchedEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, columns, num_rows, dims.kv_lora_rank, &one,
                                        weight, CUDA_R_16BF, dims.kv_lora_rank,
                                        int64_t{dims.nope_dim + dims.v_dim} * dims.kv_lora_rank, latent, CUDA_R_16BF,
                                        dims.kv_lora_rank, 0, &zero, rows, CUDA_R_16BF, num_heads * stride, stride,
                                        num_heads, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

}  // namespace

class MlaPrefill::Impl {
 public:
  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    plans_.clear();
    if (handle_ != nullptr) cudnnDestroy(handle_);
  }

  cudnnHandle_t handle() {
    if (handle_ == nullptr) EPS_CUDNN(cudnnCreate(&handle_));
    return handle_;
  }

  MlaPrefillPlan& plan(const MlaPlanKey& key) {
    auto& slot = plans_[key];
    if (!slot) slot = std::make_unique<MlaPrefillPlan>(key, handle());
    return *slot;
  }

 private:
  cudnnHandle_t handle_ = nullptr;
  std::map<MlaPlanKey, std::unique_ptr<MlaPrefillPlan>> plans_;
};

MlaPrefill::MlaPrefill() : impl_(std::make_unique<Impl>()) {}
MlaPrefill::~MlaPrefill() = default;

bool MlaPrefill::supported(const MlaDims& d) {
  const auto units = [](int dim) { return dim > 0 && dim % 8 == 0; };
  return units(d.nope_dim) && units(d.rope_dim) && units(d.v_dim) && units(d.kv_lora_rank) && d.q_dim() <= 256 &&
         d.v_dim <= 256;
}

size_t MlaPrefill::workspace_bytes(const MlaDims& dims, std::span<const DeviceSequence> sequences) {
  size_t bytes = 0;
  for (const Part& part : split_run(dims, sequences)) {
    bytes = std::max(bytes, part.attention + aligned(impl_->plan(part.key).workspace_bytes()));
  }
  return bytes;
}

void MlaPrefill::run(const MlaDims& dims, const nv_bf16* kv_b, const nv_bf16* q,
                     std::span<const DeviceSequence> sequences, int layer, nv_bf16* out, std::byte* workspace,
                     cublasHandle_t blas, cudaStream_t stream) {
  if (sequences.empty()) return;
  EPS_CUDNN(cudnnSetStream(impl_->handle(), stream));
  for (const Part& part : split_run(dims, sequences)) {
    PrefillGatherParams gather;
    gather.dims = dims;
    gather.num_sequences = static_cast<int>(part.sequences.size());
    gather.padded = static_cast<int>(part.key.batch);
    gather.key_heads = part.heads;
    gather.num_rows = part.num_rows;
    gather.key = reinterpret_cast<nv_bf16*>(workspace + part.key_rows);
    gather.latent = part.sequences.size() > 1 ? reinterpret_cast<nv_bf16*>(workspace + part.latent) : nullptr;
    int32_t k_begin = 0;
    int64_t last_row = 0;
    for (size_t i = 0; i < part.sequences.size(); ++i) {
      const DeviceSequence& s = part.sequences[i];
      const int64_t layer_row = int64_t{layer} * s.capacity;
      gather.sequences[i] = {.q_begin = s.q_begin,
                             .q_count = s.q_count,
                             .k_begin = k_begin,
                             .context = s.context,
                             .latent = s.latent + layer_row * dims.kv_lora_rank,
                             .k_pe = s.k_pe + layer_row * dims.rope_dim};
      k_begin += s.context;
      last_row = std::max<int64_t>(last_row, s.q_begin + s.q_count);
    }
    // cuDNN takes 32-bit offsets.
    EPS_CHECK_LE(std::max<int64_t>(last_row * dims.num_heads, int64_t{part.num_rows} * part.heads) *
                     std::max(dims.q_dim(), dims.v_dim),
                 int64_t{std::numeric_limits<int32_t>::max()});
    auto* cursor = reinterpret_cast<int32_t*>(workspace + part.batch);
    const auto take = [&](int64_t count) { return std::exchange(cursor, cursor + count); };
    gather.batch = {.q_length = take(part.key.batch),
                    .k_length = take(part.key.batch),
                    .q_offset = take(part.key.batch + 1),
                    .k_offset = take(part.key.batch + 1),
                    .v_offset = take(part.key.batch + 1),
                    .o_offset = take(part.key.batch + 1)};
    launch_gather_prefill(gather, stream);

    // The offsets of a ragged batch are relative to the beginning of q.
    const int64_t q_row = part.key.ragged ? 0 : part.sequences.front().q_begin;
    auto* value = reinterpret_cast<nv_bf16*>(workspace + part.value_rows);
    const nv_bf16* latent = gather.latent != nullptr ? gather.latent : gather.sequences[0].latent;
    for (int head = 0; head < dims.num_heads; head += part.heads) {
      const nv_bf16* weight = kv_b + int64_t{head} * (dims.nope_dim + dims.v_dim) * dims.kv_lora_rank;
      expand(dims, blas, latent, part.num_rows, weight, dims.nope_dim, dims.q_dim(), part.heads, gather.key);
      expand(dims, blas, latent, part.num_rows, weight + int64_t{dims.nope_dim} * dims.kv_lora_rank, dims.v_dim,
             dims.v_dim, part.heads, value);
      const MlaPlanTensors tensors{.q = q + (q_row * dims.num_heads + head) * dims.q_dim(),
                                   .k = gather.key,
                                   .v = value,
                                   .o = out + (q_row * dims.num_heads + head) * dims.v_dim,
                                   .batch = gather.batch};
      impl_->plan(part.key).execute(impl_->handle(), tensors, workspace + part.attention);
    }
  }
}

}  // namespace eps::cuda
