#include "model/kv_cache.h"

#include <algorithm>

#include "base/error.h"

namespace eps::model {
namespace {

// The initial capacity in tokens, and the least that it grows by. Growing copies the cache, and with this value a short
// chat grows only once or twice.
constexpr int64_t kMinGrowth = 256;

// Copies the first `count` tokens of each layer into new memory for `to_capacity` tokens.
Buffer regrown(ops::OpSet& ops, const Buffer& from, int64_t layers, int64_t count, int64_t from_capacity,
               int64_t to_capacity, int64_t width, DType dtype) {
  Buffer out(ops.memory());
  const MutableTensorView to = out.view(dtype, {layers * to_capacity, width});
  for (int64_t layer = 0; layer < layers && count > 0; ++layer) {
    const MutableTensorView source(from.data(), dtype, {layers * from_capacity, width});
    ops.copy(source.rows(layer * from_capacity, layer * from_capacity + count),
             to.rows(layer * to_capacity, layer * to_capacity + count));
  }
  return out;
}

}  // namespace

KvCache::KvCache(const arch::ModelSpec& spec, int64_t max_tokens, ops::OpSet& ops)
    : ops_(&ops),
      num_layers_(spec.num_layers()),
      is_latent_(spec.attention.latent() != nullptr),
      widths_(spec.attention.cache_widths()),
      dtype_(is_latent_ ? ops.activation_dtype() : ops.cache_dtype()),
      max_tokens_(max_tokens) {}

void KvCache::grow(int64_t capacity) {
  ops_->bind_thread();  // one thread creates the caches of all ranks
  Buffer first = regrown(*ops_, first_, num_layers_, num_tokens_, capacity_, capacity, widths_.first, dtype_);
  Buffer second = regrown(*ops_, second_, num_layers_, num_tokens_, capacity_, capacity, widths_.second, dtype_);
  ops_->wait();  // the copies must end before the memory that they read is freed
  first_ = std::move(first);
  second_ = std::move(second);
  capacity_ = capacity;
}

void KvCache::require_fits(int64_t count) const {
  if (count <= max_tokens_) return;
  fail(ErrorKind::kUsage, "context",
       {.what = "the sequence does not fit the context",
        .got = fmt::format("{} tokens", count),
        .wanted = fmt::format("at most {}", max_tokens_),
        .hint = "a shorter prompt or a smaller `max_tokens`"});
}

void KvCache::reserve(int64_t count) {
  require_fits(count);
  if (count > capacity_) grow(count);
}

void KvCache::extend(int64_t count) {
  const int64_t wanted = num_tokens_ + count;
  require_fits(wanted);
  // Growing by half keeps both the number of copies and the unused memory of long sequences small.
  if (wanted > capacity_) grow(std::min(max_tokens_, std::max({wanted + kMinGrowth, capacity_ * 3 / 2})));
  num_tokens_ = wanted;
}

ops::StepSequence KvCache::step_sequence(int64_t q_begin, int64_t count) const {
  ops::StepSequence out{q_begin, count, num_tokens_, capacity_};
  (is_latent_ ? out.latent : out.keys) = first_.data();
  (is_latent_ ? out.k_pe : out.values) = second_.data();
  return out;
}

}  // namespace eps::model
