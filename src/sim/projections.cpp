#include "sim/projections.h"

namespace eps::sim {

std::vector<Projection> attention_projections(const arch::AttentionSpec& a, int64_t hidden) {
  const int64_t q_out = int64_t{a.num_heads()} * a.qk_dim();
  const int64_t v_out = int64_t{a.num_heads()} * a.v_dim();
  const arch::LatentAttention* latent = a.latent();
  if (latent == nullptr) return {{q_out, hidden}, {2 * a.grouped()->gqa.kv_width(), hidden}, {hidden, v_out}};
  const ops::MlaParams& p = latent->mla;
  const int64_t q_lora_rank = latent->q_lora_rank;
  std::vector<Projection> out;
  if (q_lora_rank > 0) {
    out.push_back({q_lora_rank, hidden});
    out.push_back({q_out, q_lora_rank});
  } else {
    out.push_back({q_out, hidden});
  }
  out.push_back({int64_t{p.kv_lora_rank} + p.rope_dim, hidden});
  // Keys without position, and values, of every head; the rotated key is a result of the previous projection.
  out.push_back({int64_t{p.num_heads} * (p.nope_dim + p.v_dim), p.kv_lora_rank});
  out.push_back({hidden, v_out});
  return out;
}

}  // namespace eps::sim
