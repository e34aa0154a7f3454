#include "arch/attention_spec.h"

namespace eps::arch {
namespace {

int64_t parameters_of(const LatentAttention& a, int64_t hidden) {
  const ops::MlaParams& p = a.mla;
  const int64_t q_out = int64_t{p.num_heads} * p.q_dim();
  const int64_t lora = a.q_lora_rank;
  int64_t n = lora == 0 ? hidden * q_out : hidden * lora + lora + lora * q_out;
  n += hidden * (p.kv_lora_rank + p.rope_dim) + p.kv_lora_rank;
  n += int64_t{p.num_heads} * (p.nope_dim + p.v_dim) * p.kv_lora_rank;
  n += hidden * p.num_heads * p.v_dim;
  if (a.bias) n += (lora == 0 ? 0 : lora) + p.kv_lora_rank + p.rope_dim + hidden;
  return n;
}

int64_t parameters_of(const GroupedAttention& a, int64_t hidden) {
  const ops::GqaParams& p = a.gqa;
  const int64_t qkv = p.q_width() + 2 * p.kv_width();
  int64_t n = hidden * qkv + p.q_width() * hidden;
  if (a.qkv_bias) n += qkv;
  if (a.o_bias) n += hidden;
  if (a.qk_norm == QkNorm::kHead) n += 2 * p.head_dim;
  if (a.qk_norm == QkNorm::kWhole) n += p.q_width() + p.kv_width();
  if (a.sinks) n += p.num_heads;
  return n;
}

}  // namespace

int AttentionSpec::num_heads() const { return latent() ? latent()->mla.num_heads : grouped()->gqa.num_heads; }
int AttentionSpec::num_kv_heads() const { return latent() ? latent()->mla.num_heads : grouped()->gqa.num_kv_heads; }
int AttentionSpec::qk_dim() const { return latent() ? latent()->mla.q_dim() : grouped()->gqa.head_dim; }
int AttentionSpec::v_dim() const { return latent() ? latent()->mla.v_dim : grouped()->gqa.head_dim; }

AttentionSpec::CacheWidths AttentionSpec::cache_widths() const {
  if (latent()) return {latent()->mla.kv_lora_rank, latent()->mla.rope_dim};
  return {grouped()->gqa.kv_width(), grouped()->gqa.kv_width()};
}

int64_t AttentionSpec::parameters(int64_t hidden) const {
  return std::visit([hidden](const auto& a) { return parameters_of(a, hidden); }, kind);
}

}  // namespace eps::arch
