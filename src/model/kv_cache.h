// The latent key/value cache of one sequence: per layer, one normalised latent and one rotated key a token.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_spec.h"
#include "tensor/tensor.h"

namespace eps {

class KvCache {
 public:
  // Room for `max_tokens` is set aside as it is needed, in steps.
  KvCache(const ModelSpec& spec, int64_t max_tokens);

  int64_t num_tokens() const { return num_tokens_; }
  int64_t max_tokens() const { return max_tokens_; }
  size_t num_bytes() const;

  // Makes room for `count` more tokens in every layer; their rows are then written through latent()/k_pe().
  // Errors  kUsage when the context would exceed max_tokens
  void extend(int64_t count);

  // [num_tokens, kv_lora_rank] and [num_tokens, rope_dim] f32, valid until the next extend
  float* latent(int layer) { return layers_[static_cast<size_t>(layer)].latent.data(); }
  float* k_pe(int layer) { return layers_[static_cast<size_t>(layer)].k_pe.data(); }

 private:
  struct Layer {
    std::vector<float> latent;
    std::vector<float> k_pe;
  };
  int64_t latent_dim_;
  int64_t rope_dim_;
  int64_t max_tokens_;
  int64_t num_tokens_ = 0;
  std::vector<Layer> layers_;
};

}  // namespace eps
