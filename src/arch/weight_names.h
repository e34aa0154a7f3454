// Where the weights of a model are in a checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace eps::arch {

struct ModelSpec;

// A weight of the model, a matrix [out, in] or a vector: a tensor of a checkpoint, or a part of one that several
// weights share.
struct StoredTensor {
  std::string name;
  Shape shape = {};         // of the tensor, if it is not that of the weight
  int64_t first = 0;        // the element of the tensor that the weight begins with
  int64_t row_step = 1;     // rows of the weight are this many rows of the tensor apart
  bool transposed = false;  // stored as [in, out]
  int64_t row_width = 0;    // > 0: of each row of the tensor, which has this many elements, the weight is only a part

  StoredTensor() = default;
  StoredTensor(std::string tensor) : name(std::move(tensor)) {}  // NOLINT: most weights are whole tensors
  StoredTensor(const char* tensor) : name(tensor) {}             // NOLINT
  StoredTensor(std::string tensor, Shape whole, int64_t begin, int64_t step = 1, bool transpose = false)
      : name(std::move(tensor)), shape(whole), first(begin), row_step(step), transposed(transpose) {}

  bool empty() const { return name.empty(); }
  bool is_whole() const { return shape.rank() == 0; }
  // Differs between parts of the same tensor.
  std::string key() const { return is_whole() ? name : name + "@" + std::to_string(first); }
};

// Elements [begin, begin + count) of a dimension.
struct Slice {
  int64_t begin = 0;
  int64_t count = 0;
};

// Rows and columns of a weight [out, in] that is not stored transposed; of a vector, only `rows` counts.
StoredTensor slice_of(const StoredTensor& weight, const Shape& whole, const Slice& rows, const Slice& columns);

struct MlpNames {
  StoredTensor gate, up, down;
  StoredTensor gate_bias, up_bias, down_bias;
};

// Names of weights that a family does not have are empty. A name may be present although the model of a config.json
// does not have the weight: then a checkpoint that contains it does not belong to that config.json.
struct LayerNames {
  StoredTensor input_norm, post_attention_norm;
  // Latent attention: q alone, or q_a, q_a_norm and q_b for low-rank queries.
  StoredTensor q_a, q_a_norm, q_b, kv_a, kv_a_norm, kv_b;
  StoredTensor q_a_bias, kv_a_bias;
  // Grouped-query attention.
  StoredTensor k, v, q_bias, k_bias, v_bias, q_norm, k_norm, sinks;
  // Both.
  StoredTensor q, o, o_bias;
  StoredTensor router, router_bias, router_correction;
  MlpNames dense, shared;
  StoredTensor shared_gate;
  MlpNames residual;  // beside the experts
  StoredTensor residual_norm;

  // The names that are not empty.
  std::vector<const StoredTensor*> all() const;
};

struct GlobalNames {
  std::string embedding, final_norm, lm_head;
};

// "<prefix>gate_proj.weight", "<prefix>up_proj.weight" and "<prefix>down_proj.weight"
MlpNames llama_mlp_names(const std::string& prefix);
// The same for a routed expert: "model.layers.<layer>.mlp.experts.<expert>.gate_proj.weight" and so on
MlpNames llama_expert_names(const ModelSpec& spec, int layer, int expert);
// "<prefix>w1.weight", "<prefix>w3.weight" and "<prefix>w2.weight"
MlpNames mixtral_mlp_names(const std::string& prefix);
// The names that most families share: "model.layers.<layer>.self_attn.q_proj.weight" and so on, with the biases of
// attention, but without anything of the FFN.
LayerNames llama_layer_names(int layer);
// The same for latent attention, as DeepSeek names it.
LayerNames latent_layer_names(int layer);
GlobalNames llama_global_names();

}  // namespace eps::arch
