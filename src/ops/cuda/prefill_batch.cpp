#include "ops/cuda/prefill_batch.h"

#include <algorithm>
#include <bit>

namespace eps::cuda {
namespace {

int64_t bucket(int64_t length) {
  constexpr uint64_t kShortest = 128;  // the height of cuDNN's query tile; plans for shorter queries are not faster
  return static_cast<int64_t>(std::bit_ceil(std::max(static_cast<uint64_t>(length), kShortest)));
}

}  // namespace

PrefillBatch PrefillBatch::of(std::span<const DeviceSequence> sequences) {
  constexpr int kExactMultiple = 256;
  PrefillBatch out;
  int64_t q_length = 0;
  int64_t k_length = 0;
  for (const DeviceSequence& s : sequences) {
    out.num_rows += s.context;
    q_length = std::max<int64_t>(q_length, s.q_count);
    k_length = std::max<int64_t>(k_length, s.context);
  }
  const DeviceSequence& first = sequences.front();
  bool alike = first.q_count % kExactMultiple == 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    alike = alike && sequences[i].q_count == first.q_count && sequences[i].context == first.context &&
            sequences[i].q_begin == first.q_begin + static_cast<int32_t>(i) * first.q_count;
  }
  out.ragged = !alike;
  out.size = static_cast<int64_t>(alike ? sequences.size() : std::bit_ceil(sequences.size()));
  out.q_length = alike ? first.q_count : bucket(q_length);
  out.k_length = alike ? first.context : std::max(bucket(k_length), bucket(q_length));
  return out;
}

}  // namespace eps::cuda
