// The sizes and options of a decoder-only MoE transformer of any family. The decoder depends on nothing else.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ops/op_params.h"
#include "ops/step.h"
#include "plan/problem.h"

namespace eps::model {

struct YarnSpec {
  double factor = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double original_max_positions = 4096.0;
  double attention_factor = 1.0;  // multiplies cos and sin
  bool truncate = true;           // correction range rounded to whole dimensions
};

struct RopeSpec {
  int dim = 0;
  double theta = 10000.0;
  std::optional<YarnSpec> yarn;  // none: plain rope
};

// Multi-head latent attention.
struct AttentionSpec {
  ops::MlaParams mla;
  int q_lora_rank = 0;  // 0: one full-rank query projection
  bool bias = false;    // on the down projections and the output projection
  float lora_norm_eps = 1e-6F;
  RopeSpec rope;
};

struct MoeSpec {
  ops::GateParams gate;
  int64_t inner = 0;         // of one expert
  int64_t shared_inner = 0;  // of all shared experts together; 0: none
};

struct LayerSpec {
  int64_t dense_inner = 0;  // > 0: a dense FFN of this size instead of the MoE
  bool is_moe() const { return dense_inner == 0; }
};

struct ModelSpec {
  std::string family;  // "deepseek_v2"
  int64_t vocab_size = 0;
  int64_t hidden = 0;
  int64_t max_positions = 0;
  float norm_eps = 1e-6F;
  bool tie_embeddings = false;
  AttentionSpec attention;
  MoeSpec moe;
  std::vector<LayerSpec> layers;
  int num_mtp_layers = 0;  // layers for multi-token prediction, stored after `layers`; they are not run
  std::vector<int> bos_token_ids;
  std::vector<int> eos_token_ids;

  int num_layers() const { return static_cast<int>(layers.size()); }
  int num_moe_layers() const;
  int first_moe_layer() const;  // -1: none

  // Numbers of parameters, computed from the shapes.
  int64_t attention_parameters() const;  // one layer, norms included
  int64_t expert_parameters() const;     // one routed expert
  int64_t total_parameters() const;
  int64_t active_parameters() const;  // those that are used for one token

  // Multiplications and additions of prefilling `num_sequences` of `length` tokens: two for each active parameter,
  // except for the embedding, which is looked up, and the output matrix, which is used only for the last token of a
  // sequence. In addition causal attention, with the keys and values of every head as MLA is defined, even if it is
  // computed in another way.
  double prefill_flops(int64_t num_sequences, int64_t length) const;
};

// Checks products of sizes: even if every size is in range, they may exceed the memory of any machine, or int64.
// Errors  kInput with `where`, naming the part of the model
void check_sizes(const ModelSpec& spec, const std::string& where);

// The sizes of the MoE layers for planning. `weights`: dtype of the stored weights; `activations`: compute dtype.
plan::MoeShape moe_shape(const ModelSpec& spec, DType weights, DType activations);

// cos and sin [num_positions, dim / 2], attention factor included, in host memory.
struct RopeTable {
  int rope_dim = 0;
  std::vector<float> cos;
  std::vector<float> sin;

  ops::RopeView view() const;
};

// Computes the table for positions [0, num_positions).
RopeTable make_rope_table(const RopeSpec& spec, int64_t num_positions);

}  // namespace eps::model
