// The sizes and options of a decoder-only MoE transformer of any family. Planning, simulation, loading and running read
// this description and nothing else.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "arch/attention_spec.h"
#include "ops/op_params.h"
#include "plan/problem.h"

namespace eps::arch {

enum class NormKind : uint8_t {
  kRms,
  kLayerNorm,  // subtracts the mean; with a weight and no bias
};

struct MoeSpec {
  ops::GateParams gate;
  bool router_bias = false;  // added to the router's logits
  int64_t inner = 0;         // of one expert
  bool expert_bias = false;  // on both projections of every expert
  ops::SwigluParams swiglu;  // the activation of the experts
  int64_t shared_inner = 0;  // of all shared experts together; 0: none
  bool shared_gate = false;  // the shared experts' output is multiplied by the sigmoid of a projection to one number
  // The size of a dense FFN beside the experts, with a norm of its own (Arctic); 0: none. It reads the residual stream
  // after attention, the experts read it before.
  int64_t residual_inner = 0;
};

struct LayerSpec {
  int64_t dense_inner = 0;  // > 0: a dense FFN of this size instead of the MoE
  int64_t window = 0;       // a token attends to this many positions at most, itself included; 0: all
  bool is_moe() const { return dense_inner == 0; }
};

// Matrices in e4m3, with one f32 factor for each block of [rows, columns].
struct Fp8Blocks {
  int64_t rows = 0;
  int64_t columns = 0;
};

struct ModelSpec {
  std::string family;  // "deepseek_v2"
  int64_t vocab_size = 0;
  int64_t hidden = 0;
  int64_t max_positions = 0;
  NormKind norm = NormKind::kRms;
  float norm_eps = 1e-6F;
  bool tie_embeddings = false;
  AttentionSpec attention;
  MoeSpec moe;
  std::vector<LayerSpec> layers;
  std::optional<Fp8Blocks> fp8_blocks;  // how stored matrices in e4m3 are scaled; none: there are no such matrices
  bool mxfp4 = false;                   // the experts' matrices are stored in MXFP4
  int num_mtp_layers = 0;               // layers for multi-token prediction, stored after `layers`; they are not run
  std::vector<int> bos_token_ids;
  std::vector<int> eos_token_ids;

  int num_layers() const { return static_cast<int>(layers.size()); }
  int num_moe_layers() const;
  int num_dense_layers() const { return num_layers() - num_moe_layers(); }
  int first_moe_layer() const;  // -1: none
  int64_t dense_inner() const;  // the largest of a dense layer; 0: there are none

  // Numbers of parameters, computed from the shapes.
  int64_t attention_parameters() const;  // one layer, its two norms included
  int64_t expert_parameters() const;     // one routed expert
  int64_t total_parameters() const;
  int64_t active_parameters() const;  // those that are used for one token

  // Multiplications and additions of prefilling `num_sequences` of `length` tokens: two for each active parameter,
  // except for the embedding, which is looked up, and the output matrix, which is used only for the last token of a
  // sequence. In addition causal attention, with the keys and values of every head as it is defined, even if it is
  // computed in another way.
  double prefill_flops(int64_t num_sequences, int64_t length) const;
};

// Checks products of sizes: even if every size is in range, they may exceed the memory of any machine, or int64.
// Errors  kInput with `where`, naming the part of the model
void check_sizes(const ModelSpec& spec, const std::string& where);

// The sizes of the MoE layers for planning. `weights`: dtype of the stored weights; `activations`: compute dtype.
plan::MoeShape moe_shape(const ModelSpec& spec, DType weights, DType activations);

}  // namespace eps::arch
