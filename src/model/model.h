// The weights of a model, packed for an op set. Immutable after loading; ranks that use the same memory share them.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "model/family.h"
#include "model/model_spec.h"
#include "model/weight_source.h"
#include "moe/placement.h"
#include "ops/moe_weights.h"

namespace eps::model {

using LinearPtr = std::unique_ptr<ops::LinearWeight>;

struct Norm {
  Buffer memory;
  int64_t width = 0;
  TensorView view() const { return {memory.data(), DType::kF32, {width}}; }
};

// [out, in] with an optional bias [out]
struct Linear {
  LinearPtr weight;
  Norm bias;  // width 0: none
};

struct AttentionWeights {
  Linear q;  // hidden -> heads * q_dim, or q_lora_rank -> heads * q_dim
  Linear q_a;
  Norm q_a_norm;
  Linear kv_a;
  Norm kv_a_norm;
  std::unique_ptr<ops::MlaWeight> kv_b;
  Linear o;
};

struct MlpWeights {
  LinearPtr gate_up;  // [2I, H]
  LinearPtr down;     // [H, I]
};

struct LayerWeights {
  Norm input_norm;
  Norm post_attention_norm;
  AttentionWeights attention;
  MlpWeights dense;                                          // dense layers
  LinearPtr router;                                          // MoE layers, f32
  std::unique_ptr<ops::WeightPool> gate_up_pool, down_pool;  // memory that `experts` may be allocated in
  std::vector<MlpWeights> experts;  // [num_experts]; members are null for experts of other ranks
  MlpWeights shared;                // members are null without shared experts
};

// Selects the weights that a rank with its own memory loads: its local experts, and everything that is not an expert.
struct RankShare {
  int rank = 0;
  int num_ranks = 1;  // 1: everything
};

// Called after each weight with the bytes taken from the source so far, one call at a time, from any thread. An
// exception that it throws ends the loading.
using LoadProgress = std::function<void(uint64_t)>;

class Model {
 public:
  // Packs every weight of `spec` from `source`. The source is kept, because the embedding may stay in its memory. The
  // source memory of every other weight is released as soon as the weight is packed, so that the peak stays near one
  // copy of the checkpoint.
  //
  // With a share, `progress` counts each local expert num_ranks times, so that the mean over all ranks is the progress
  // through the checkpoint.
  //
  // Errors  kInput: a weight is missing or has another shape; kResource: its file has changed meanwhile; kUsage: the
  // ranks
  //         do not divide the experts
  static std::unique_ptr<Model> load(const ModelSpec& spec, const Family& family, std::unique_ptr<WeightSource> source,
                                     const ops::OpSet& ops, const LoadProgress& progress, RankShare share = {});

  const ModelSpec& spec() const { return spec_; }
  const TensorView& embedding() const { return embedding_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  const Norm& final_norm() const { return final_norm_; }
  const ops::LinearWeight& lm_head() const { return *lm_head_; }
  const ops::RopeView& rope() const { return rope_; }

 private:
  ModelSpec spec_;
  std::unique_ptr<WeightSource> source_;
  TensorView embedding_;  // [V, H] as stored, in the op set's memory
  Buffer embedding_memory_;
  std::vector<LayerWeights> layers_;
  Norm final_norm_;
  LinearPtr lm_head_;
  RopeTable rope_table_;
  Buffer rope_cos_, rope_sin_;
  ops::RopeView rope_;
};

// The MoE weights of `layer` on one rank; experts of other ranks are null.
ops::MoeWeights rank_weights(const LayerWeights& layer, const moe::ExpertPlacement& placement, int rank);

// Loads only the MoE weights of one layer, or a rank's share of them (for benchmarks of a layer).
LayerWeights load_moe_layer(const ModelSpec& spec, const Family& family, WeightSource& source, const ops::OpSet& ops,
                            int layer, RankShare share = {});

}  // namespace eps::model
