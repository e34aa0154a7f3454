#include "model/kv_cache.h"

#include "base/error.h"

namespace eps {

KvCache::KvCache(const ModelSpec& spec, int64_t max_tokens)
    : latent_dim_(spec.attention.mla.kv_lora_rank),
      rope_dim_(spec.attention.mla.rope_dim),
      max_tokens_(max_tokens),
      layers_(static_cast<size_t>(spec.num_layers())) {}

size_t KvCache::num_bytes() const {
  size_t floats = 0;
  for (const Layer& layer : layers_) floats += layer.latent.capacity() + layer.k_pe.capacity();
  return floats * sizeof(float);
}

void KvCache::extend(int64_t count) {
  if (num_tokens_ + count > max_tokens_) {
    fail(ErrorKind::kUsage, "context",
         {.what = "the sequence does not fit the context",
          .got = fmt::format("{} tokens", num_tokens_ + count),
          .wanted = fmt::format("at most {}", max_tokens_),
          .hint = "a shorter prompt or a smaller --max-tokens"});
  }
  num_tokens_ += count;
  for (Layer& layer : layers_) {
    layer.latent.resize(static_cast<size_t>(num_tokens_ * latent_dim_));
    layer.k_pe.resize(static_cast<size_t>(num_tokens_ * rope_dim_));
  }
}

}  // namespace eps
