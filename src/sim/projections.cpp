#include "sim/projections.h"

#include <algorithm>

namespace eps::sim {

std::vector<Projection> attention_projections(const AttentionShape& a, int64_t hidden) {
  const int64_t q_out = int64_t{a.num_heads} * a.qk_dim;
  const int64_t v_out = int64_t{a.num_heads} * a.v_dim;
  if (!a.latent) {
    return {{q_out, hidden, Split::kHeads},
            {int64_t{a.num_kv_heads} * (a.qk_dim + a.v_dim), hidden, Split::kKvHeads},
            {hidden, v_out, Split::kInput}};
  }
  std::vector<Projection> out;
  if (a.q_lora_rank > 0) {
    out.push_back({a.q_lora_rank, hidden, Split::kWhole});
    out.push_back({q_out, a.q_lora_rank, Split::kHeads});
  } else {
    out.push_back({q_out, hidden, Split::kHeads});
  }
  out.push_back({a.kv_lora_rank + a.rope_dim, hidden, Split::kWhole});
  // Keys without position, and values, of every head; the rotated key is a result of the previous projection.
  out.push_back({int64_t{a.num_heads} * (a.qk_dim - a.rope_dim + a.v_dim), a.kv_lora_rank, Split::kHeads});
  out.push_back({hidden, v_out, Split::kInput});
  return out;
}

Projection part_of(const Projection& whole, const AttentionShape& attention, int num_ranks) {
  Projection part = whole;
  switch (whole.split) {
    case Split::kWhole: break;
    case Split::kHeads: part.n /= num_ranks; break;
    case Split::kKvHeads: part.n /= std::min(num_ranks, attention.num_kv_heads); break;
    case Split::kInput: part.k /= num_ranks; break;
  }
  return part;
}

}  // namespace eps::sim
