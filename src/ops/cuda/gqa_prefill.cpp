#include "ops/cuda/gqa_prefill.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "ops/cuda/kernels/attention/gqa_prefill_gather.h"
#include "ops/cuda/prefill_batch.h"

namespace eps::cuda {
namespace {

// Keys and values of more sequences are gathered together while they fit in about this.
constexpr size_t kWorkspaceLimit = size_t{512} << 20;
// cuDNN loads whole tiles of keys and values, also those that end after the last row.
constexpr int kRowsAfterEnd = 128;

// Sequences that are processed together, and the layout of their workspace.
struct Part {
  std::span<const DeviceSequence> sequences;
  PrefillBatch batch;
  SdpaPlanKey key;
  bool is_gathered = true;  // else keys and values are read where they are
  size_t values = 0;        // offsets in the workspace; keys come first
  size_t index = 0;
  size_t attention = 0;
};

Part layout(const GqaCall& call, std::span<const DeviceSequence> sequences) {
  const GqaDims& dims = call.dims;
  Part part{.sequences = sequences, .batch = PrefillBatch::of(sequences), .key = {}};
  const PrefillBatch& batch = part.batch;
  part.key = {.ragged = batch.ragged,
              .batch = batch.size,
              .q_length = batch.q_length,
              .k_length = batch.k_length,
              .heads = dims.num_heads,
              .all_heads = dims.num_heads,
              .kv_heads = dims.num_kv_heads,
              .q_dim = dims.head_dim,
              .v_dim = dims.head_dim,
              .scale = dims.softmax_scale,
              .window = call.window < batch.k_length ? call.window : 0,  // a longer one changes nothing
              .has_sinks = call.sinks != nullptr};
  // A ragged plan may load a tile beyond the end of a cache.
  part.is_gathered = batch.ragged || sequences.size() > 1;
  const size_t rows = part.is_gathered ? static_cast<size_t>(batch.num_rows + kRowsAfterEnd) : 0;
  const size_t bytes = workspace_aligned(rows * static_cast<size_t>(dims.kv_width()) * sizeof(nv_bf16));
  part.values = bytes;
  part.index = part.values + bytes;
  part.attention = part.index + workspace_aligned(batch.index_bytes());
  return part;
}

std::vector<Part> split_run(const GqaCall& call, std::span<const DeviceSequence> sequences) {
  std::vector<Part> parts;
  while (!sequences.empty()) {
    size_t count = 1;
    while (count < sequences.size() && count < kMaxPrefillBatch &&
           layout(call, sequences.first(count + 1)).attention <= kWorkspaceLimit) {
      ++count;
    }
    parts.push_back(layout(call, sequences.first(count)));
    sequences = sequences.subspan(count);
  }
  return parts;
}

}  // namespace

bool GqaPrefill::supported(const GqaDims& dims) {
  return dims.head_dim % 8 == 0 && dims.head_dim >= 64 && dims.head_dim <= 256;
}

size_t GqaPrefill::workspace_bytes(const GqaCall& call, std::span<const DeviceSequence> sequences) {
  size_t bytes = 0;
  for (const Part& part : split_run(call, sequences)) {
    bytes = std::max(bytes, part.attention + workspace_aligned(plans_.plan(part.key).workspace_bytes()));
  }
  return bytes;
}

void GqaPrefill::run(const GqaCall& call, std::span<const DeviceSequence> sequences, std::byte* workspace,
                     cudaStream_t stream) {
  if (sequences.empty()) return;
  const GqaDims& dims = call.dims;
  const int64_t q_width = int64_t{dims.num_heads} * dims.head_dim;
  plans_.set_stream(stream);
  for (const Part& part : split_run(call, sequences)) {
    GqaGatherParams gather;
    gather.dims = dims;
    gather.num_sequences = static_cast<int>(part.sequences.size());
    gather.padded = static_cast<int>(part.key.batch);
    gather.num_rows = part.is_gathered ? part.batch.num_rows : 0;
    gather.key = reinterpret_cast<nv_bf16*>(workspace);
    gather.value = reinterpret_cast<nv_bf16*>(workspace + part.values);
    gather.batch = RaggedBatch::in(reinterpret_cast<int32_t*>(workspace + part.index), part.key.batch);
    int32_t k_begin = 0;
    int64_t last_row = 0;
    for (size_t i = 0; i < part.sequences.size(); ++i) {
      const DeviceSequence& s = part.sequences[i];
      const int64_t layer_row = int64_t{call.layer} * s.capacity;
      gather.sequences[i] = {.rows = {s.q_begin, s.q_count, k_begin, s.context},
                             .keys = s.keys + layer_row * dims.kv_width(),
                             .values = s.values + layer_row * dims.kv_width()};
      k_begin += s.context;
      last_row = std::max<int64_t>(last_row, s.q_begin + s.q_count);
    }
    // cuDNN takes 32-bit offsets.
    const int64_t last_offset = std::max(last_row * q_width, int64_t{part.batch.num_rows} * dims.kv_width());
    EPS_CHECK_LE(last_offset, int64_t{std::numeric_limits<int32_t>::max()});
    if (part.is_gathered) launch_gather_keys(gather, stream);
    // The offsets of a ragged batch are relative to the beginning of q.
    const int64_t q_row = part.key.ragged ? 0 : part.sequences.front().q_begin;
    const SdpaTensors tensors{.q = call.q + q_row * q_width,
                              .k = part.is_gathered ? gather.key : gather.sequences[0].keys,
                              .v = part.is_gathered ? gather.value : gather.sequences[0].values,
                              .o = call.out + q_row * q_width,
                              .batch = gather.batch,
                              .sinks = call.sinks};
    plans_.plan(part.key).execute(plans_.handle(), tensors, workspace + part.attention);
  }
}

}  // namespace eps::cuda
