// Parts of config.json that several families have.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "arch/model_spec.h"
#include "io/json.h"

namespace eps::arch {

// All functions report invalid values as kInput, naming the file and the key.

// A size in [1, 2^24]; larger ones are assumed to be errors.
int64_t read_size(const io::JsonObject& config, std::string_view key);

// "vocab_size", "tie_word_embeddings" and the begin and end tokens, which every family has, and "quantization_config":
// weights may be in e4m3 with block scales or, if the family has such, in MXFP4.
ModelSpec read_common(const io::JsonObject& config, std::string family, bool has_mxfp4 = false);

// "hidden_size", "max_position_embeddings" and "rms_norm_eps", under the names that most families use.
void read_llama_sizes(const io::JsonObject& config, ModelSpec& spec, float default_eps);

// Refuses another activation than SwiGLU's.
void require_silu(const io::JsonObject& config, std::string_view key = "hidden_act");

// "num_attention_heads", "num_key_value_heads" (default: as many) and, if the family has it, "head_dim" (default:
// hidden divided by heads).
GroupedAttention read_grouped_attention(const io::JsonObject& config, int64_t hidden, bool has_head_dim);

// Latent attention, with its rotation (DeepSeek). `rope_pairs`: which elements are rotated together.
AttentionSpec read_latent_attention(const io::JsonObject& config, ops::RopePairs rope_pairs);

// "clip_qkv": the limit of queries, keys and values; 0 if there is none.
float read_clip(const io::JsonObject& object);

// "layer_types": sets the window of layers of type "sliding_attention"; those of type "full_attention" have none.
void read_layer_types(const io::JsonObject& config, ModelSpec& spec, int64_t window);

// The number of experts under `experts_key` and "num_experts_per_tok", for a softmax over all experts.
ops::GateParams read_gate(const io::JsonObject& config, std::string_view experts_key);

// A gate with sigmoid scores, a correction bias and groups of experts ranked by their two best: "norm_topk_prob",
// "routed_scaling_factor", "n_group" and "topk_group" (DeepSeek-V3, GLM-4.5).
ops::GateParams read_corrected_gate(const io::JsonObject& config, std::string_view experts_key);
// "n_group" and "topk_group".
void read_groups(const io::JsonObject& config, ops::GateParams& gate);

// "n_routed_experts" or, as transformers also accepts, "num_experts".
std::string_view routed_experts_key(const io::JsonObject& config);

// Adds "num_hidden_layers" layers, of which the first "first_k_dense_replace" have a dense FFN of "intermediate_size";
// all of them have if there are no experts. Also reads the number of layers for multi-token prediction.
// Returns whether any layer has experts.
bool read_dense_first_layers(const io::JsonObject& config, ModelSpec& spec, int64_t default_dense);
// "moe_intermediate_size" and "n_shared_experts" of that size.
void read_expert_sizes(const io::JsonObject& config, ModelSpec& spec);

// Adds "num_hidden_layers" layers, of which those in "mlp_only_layers" and those that "decoder_sparse_step" leaves out
// have a dense FFN of "intermediate_size" (Qwen).
void read_sparse_layers(const io::JsonObject& config, ModelSpec& spec);

struct RopeConfig {
  RopeSpec spec;
  double softmax_factor = 1.0;  // of the softmax scale: YaRN with "mscale_all_dim", for attention that uses it
};

struct RopeDefaults {
  double theta = 10000.0;
  double partial_rotary_factor = 1.0;
  ops::RopeLayout layout = {ops::RopePairs::kHalves, ops::RopePlace::kFirst};
  bool may_be_partial = false;  // whether the family's code rotates a part of each head if it is told to
};

// "rope_theta", "rope_scaling", "rope_parameters" and, for a part of each head, "partial_rotary_factor".
RopeConfig read_rope(const io::JsonObject& config, int head_dim, const RopeDefaults& defaults);

}  // namespace eps::arch
