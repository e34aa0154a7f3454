#include "ops/cuda/mla_prefill.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "ops/cuda/kernels/attention/mla_prefill_gather.h"
#include "ops/cuda/library_check.h"
#include "ops/cuda/prefill_batch.h"

namespace eps::cuda {
namespace {

constexpr size_t aligned(size_t bytes) { return workspace_aligned(bytes); }

// Sequences that are processed together, `heads` at a time, and the layout of their workspace.
struct Part {
  std::span<const DeviceSequence> sequences;
  int heads = 0;
  int num_rows = 0;
  SdpaPlanKey key;
  size_t latent = 0;  // offsets in the workspace; [num_rows, kv_lora_rank], absent for a single sequence
  size_t key_rows = 0;
  size_t value_rows = 0;
  size_t batch = 0;
  size_t attention = 0;
};

Part layout(const MlaDims& dims, std::span<const DeviceSequence> sequences, int heads) {
  const PrefillBatch batch = PrefillBatch::of(sequences);
  Part part{.sequences = sequences, .heads = heads, .num_rows = batch.num_rows, .key = {}};
  part.key = {.ragged = batch.ragged,
              .batch = batch.size,
              .q_length = batch.q_length,
              .k_length = batch.k_length,
              .heads = heads,
              .all_heads = dims.num_heads,
              .kv_heads = heads,
              .q_dim = dims.q_dim(),
              .v_dim = dims.v_dim,
              .scale = dims.softmax_scale};
  const auto rows = static_cast<size_t>(part.num_rows);
  const auto row_bytes = [&](int columns) { return aligned(rows * static_cast<size_t>(columns) * sizeof(nv_bf16)); };
  part.key_rows = sequences.size() > 1 ? row_bytes(dims.kv_lora_rank) : 0;
  part.value_rows = part.key_rows + row_bytes(heads * dims.q_dim());
  part.batch = part.value_rows + row_bytes(heads * dims.v_dim);
  part.attention = part.batch + aligned(batch.index_bytes());
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

bool MlaPrefill::supported(const MlaDims& d) {
  const auto units = [](int dim) { return dim > 0 && dim % 8 == 0; };
  return units(d.nope_dim) && units(d.rope_dim) && units(d.v_dim) && units(d.kv_lora_rank) && d.q_dim() <= 256 &&
         d.v_dim <= 256;
}

size_t MlaPrefill::workspace_bytes(const MlaDims& dims, std::span<const DeviceSequence> sequences) {
  size_t bytes = 0;
  for (const Part& part : split_run(dims, sequences)) {
    bytes = std::max(bytes, part.attention + aligned(plans_.plan(part.key).workspace_bytes()));
  }
  return bytes;
}

void MlaPrefill::run(const MlaDims& dims, const nv_bf16* kv_b, const nv_bf16* q,
                     std::span<const DeviceSequence> sequences, int layer, nv_bf16* out, std::byte* workspace,
                     cublasHandle_t blas, cudaStream_t stream) {
  if (sequences.empty()) return;
  plans_.set_stream(stream);
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
      gather.sequences[i] = {.rows = {s.q_begin, s.q_count, k_begin, s.context},
                             .latent = s.latent + layer_row * dims.kv_lora_rank,
                             .k_pe = s.k_pe + layer_row * dims.rope_dim};
      k_begin += s.context;
      last_row = std::max<int64_t>(last_row, s.q_begin + s.q_count);
    }
    // cuDNN takes 32-bit offsets.
    EPS_CHECK_LE(std::max<int64_t>(last_row * dims.num_heads, int64_t{part.num_rows} * part.heads) *
                     std::max(dims.q_dim(), dims.v_dim),
                 int64_t{std::numeric_limits<int32_t>::max()});
    gather.batch = RaggedBatch::in(reinterpret_cast<int32_t*>(workspace + part.batch), part.key.batch);
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
      const SdpaTensors tensors{.q = q + (q_row * dims.num_heads + head) * dims.q_dim(),
                                .k = gather.key,
                                .v = value,
                                .o = out + (q_row * dims.num_heads + head) * dims.v_dim,
                                .batch = gather.batch};
      plans_.plan(part.key).execute(plans_.handle(), tensors, workspace + part.attention);
    }
  }
}

}  // namespace eps::cuda
