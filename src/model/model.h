// The weights of a model, packed for an op set. Immutable after loading; ranks that use the same memory share them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "arch/family.h"
#include "arch/model_spec.h"
#include "model/weight_source.h"
#include "moe/placement.h"
#include "ops/moe_weights.h"

namespace eps::model {

// Shared between ranks of one memory that all have the whole matrix.
using LinearPtr = std::shared_ptr<const ops::LinearWeight>;

// A vector in f32: the weight of a norm, or a bias, or the biases of several experts.
struct Norm {
  Buffer memory;
  int64_t width = 0;  // 0: the model does not have it
  TensorView view() const { return width == 0 ? TensorView() : TensorView{memory.data(), DType::kF32, {width}}; }
  MutableTensorView rows(int64_t row_width) const {
    return {memory.data(), DType::kF32, {width / row_width, row_width}};
  }
};

// [out, in] with an optional bias [out]
struct Linear {
  LinearPtr weight;
  Norm bias;  // width 0: none
};

// Members that the model's attention does not have are empty.
struct AttentionWeights {
  Linear q;  // hidden -> heads * q_dim, or q_lora_rank -> heads * q_dim
  Linear o;
  // Latent attention.
  Linear q_a;
  Norm q_a_norm;
  Linear kv_a;
  Norm kv_a_norm;
  std::unique_ptr<ops::MlaWeight> kv_b;
  // Grouped-query attention.
  Linear k, v;
  Norm q_norm, k_norm;
  Norm sinks;  // [heads]
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
  Norm router_bias, router_correction;                       // [num_experts]; width 0: none
  std::unique_ptr<ops::WeightPool> gate_up_pool, down_pool;  // memory that `experts` may be allocated in
  std::vector<MlpWeights> experts;  // [num_experts]; members are null for experts of other ranks
  // [loaded experts, 2I] and [loaded experts, H]; width 0: none. If experts are split, only rank 0 has `down_bias`.
  Norm gate_up_bias, down_bias;
  ops::SwigluParams swiglu;  // of the experts
  MlpWeights shared;         // members are null without shared experts
  LinearPtr shared_gate;     // [1, H]; null: none
  MlpWeights residual;       // beside the experts; members are null if there is none
  Norm residual_norm;
};

// Selects the weights that a rank loads: its part of what the strategy splits (arch/rank_part.h), its local experts,
// and everything else whole.
struct RankShare {
  int rank = 0;
  int num_ranks = 1;  // 1: everything
  plan::Strategy strategy = plan::Strategy::kDpEp;

  bool splits_experts() const { return strategy == plan::Strategy::kTpTp; }
};

// Matrices that several ranks of one memory have whole: the first rank to load one packs it for all.
//
// Threads  any
class WholeWeights {
 public:
  struct Entry {
    LinearPtr weight;           // null: not loaded yet
    uint64_t stored_bytes = 0;  // of the checkpoint
  };
  Entry find(const std::string& name) const;
  void add(const std::string& name, Entry entry);

  // In memory of the model that loaded it, which must outlive the others. Set and read by one job of each load.
  std::optional<TensorView> embedding;
  uint64_t embedding_bytes = 0;  // as stored

 private:
  mutable std::mutex mutex_;
  std::map<std::string, Entry> weights_;  // by the name of the first tensor
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
  // With a share, `progress` counts weights that only this rank reads num_ranks times, so that the mean over all ranks
  // is the progress through the checkpoint. `whole` (null: none) is what ranks of the same memory share.
  //
  // Errors  kInput: a weight is missing or has another shape; kResource: its file has changed meanwhile; kUsage: the
  //         ranks do not divide the experts or what the strategy splits, or the op set lacks an operation that the
  //         model needs
  static std::unique_ptr<Model> load(const arch::ModelSpec& spec, const arch::Family& family,
                                     std::unique_ptr<WeightSource> source, const ops::OpSet& ops,
                                     const LoadProgress& progress, RankShare share = {}, WholeWeights* whole = nullptr);

  // The sizes of this rank's part.
  const arch::ModelSpec& spec() const { return spec_; }
  const TensorView& embedding() const { return embedding_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  const Norm& final_norm() const { return final_norm_; }
  const ops::LinearWeight& lm_head() const { return *lm_head_; }
  const ops::RopeView& rope() const { return rope_; }

 private:
  arch::ModelSpec spec_;
  std::unique_ptr<WeightSource> source_;  // null if the embedding is in memory of another rank's
  TensorView embedding_;                  // [V, H] as stored, or scaled in f32, in the op set's memory
  Buffer embedding_memory_;
  std::vector<LayerWeights> layers_;
  Norm final_norm_;
  LinearPtr lm_head_;
  arch::RopeTable rope_table_;
  Buffer rope_cos_, rope_sin_;
  ops::RopeView rope_;
};

// The MoE weights of `layer` on one rank of `placement`; experts of other ranks are null.
ops::MoeWeights rank_weights(const LayerWeights& layer, const moe::ExpertPlacement& placement, int rank);
ops::RouterWeights router_weights(const LayerWeights& layer);

// Loads only the MoE weights of one layer, or a rank's share of them (for benchmarks of a layer).
LayerWeights load_moe_layer(const arch::ModelSpec& spec, const arch::Family& family, WeightSource& source,
                            const ops::OpSet& ops, int layer, RankShare share = {});

}  // namespace eps::model
