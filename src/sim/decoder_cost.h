// Computes the times of a decoder's parts other than the routed experts, on one rank.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "plan/layer_cost.h"
#include "plan/profile.h"
#include "sim/projections.h"
#include "sim/simulated_model.h"

namespace eps::sim {

// Prompts that are prefilled together: `batch` sequences over all ranks.
struct PrefillBatch {
  int64_t batch = 0;
  int64_t sequence_length = 0;
  int64_t tokens() const { return batch * sequence_length; }
};

// Times of one rank, in µs; they are the same on all ranks. With data-parallel attention each rank has its own whole
// sequences, with tensor-parallel attention each has its heads of all sequences.
//
// Errors  kUsage when the profile lacks what the model needs
class DecoderCost {
 public:
  DecoderCost(const SimulatedModel& model, const plan::HardwareProfile& profile, plan::Strategy strategy,
              int num_ranks);

  double embedding_us(const PrefillBatch& batch) const;  // its all-reduce is not included
  // The projections of queries, keys, values and output.
  double projections_us(const PrefillBatch& batch) const;
  // Every query of a layer with the keys up to its own position, of the last `window` (0: all): without a window,
  // sequence · (sequence + 1) / 2 pairs per head.
  double scores_us(const PrefillBatch& batch, int64_t window) const;
  // Reads the residual stream and a block's output, and writes their sum and its normalised copy.
  double norm_us(int64_t tokens) const;
  double gate_us(int64_t tokens) const;
  double dense_ffn_us(const PrefillBatch& batch) const;
  double residual_ffn_us(const PrefillBatch& batch) const;
  // For the last token of each sequence.
  double lm_head_us(const PrefillBatch& batch) const;
  // Adds up the partial sums of all tokens over all ranks; the ring volume is 2 · bytes / ranks · (ranks - 1). 0
  // without tensor parallelism.
  double all_reduce_us(const PrefillBatch& batch) const;

  // The tokens that attention on a rank processes, and those whose MoE layer starts on the rank.
  int64_t attention_tokens(const PrefillBatch& batch) const;
  int64_t own_tokens(const PrefillBatch& batch) const;
  // The tokens that the gate and the norm before it process.
  int64_t moe_tokens(const PrefillBatch& batch) const;

 private:
  double gemm_us(const plan::GemmProfile& gemm, int64_t n, int64_t k, int64_t rows) const;
  double ffn_us(int64_t inner, int64_t tokens) const;

  const arch::ModelSpec& spec_;
  const arch::ModelSpec part_;  // of one rank
  const plan::HardwareProfile& profile_;
  plan::MoeShape moe_;
  bool heads_split_;
  bool experts_split_;
  int num_ranks_;
  const plan::GemmProfile& linear_;  // of weights in the model's weight type
  const plan::GemmProfile& plain_;   // of those that keep the activations' type: head and gate
  plan::LayerCost layer_;
};

}  // namespace eps::sim
