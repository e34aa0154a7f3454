#include "sim/model_shape.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "model/family.h"
#include "sim/projections.h"

namespace eps::sim {
namespace {

// Grouped-query models, from their published configurations. Their sizes are constants because families that this build
// cannot run have no config reader.
struct GroupedQueryModel {
  std::string_view name;
  int num_layers;
  int64_t hidden;
  int64_t vocab_size;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int num_experts;
  int top_k;
  int64_t inner;
  int64_t residual_inner;
};

constexpr std::array<GroupedQueryModel, 4> kGroupedQueryModels = {{
    {"mixtral-8x7b", 32, 4096, 32000, 32, 8, 128, 8, 2, 14336, 0},
    {"dbrx", 40, 6144, 100352, 48, 8, 128, 16, 4, 10752, 0},
    // The dense FFN beside the experts is as wide as the model (7168), not as an expert (4864): only then does the
    // model have the 10 B dense parameters of its description.
    {"arctic", 35, 7168, 32000, 56, 8, 128, 128, 2, 4864, 7168},
    {"qwen3-30b-a3b", 48, 2048, 151936, 32, 4, 128, 128, 8, 768, 0},
}};

constexpr std::array<std::string_view, 2> kLatentModels = {"deepseek-v2", "deepseek-v2-lite"};

ModelShape shape_of(const GroupedQueryModel& model) {
  ModelShape shape;
  shape.name = model.name;
  shape.num_layers = model.num_layers;
  shape.residual_inner = model.residual_inner;
  shape.hidden = model.hidden;
  shape.vocab_size = model.vocab_size;
  shape.attention.num_heads = model.num_heads;
  shape.attention.num_kv_heads = model.num_kv_heads;
  shape.attention.qk_dim = model.head_dim;
  shape.attention.v_dim = model.head_dim;
  shape.moe.hidden = model.hidden;
  shape.moe.inner = model.inner;
  shape.moe.top_k = model.top_k;
  shape.num_experts = model.num_experts;
  return shape;
}

constexpr double kBytesPerGb = 1e9;

}  // namespace

int64_t AttentionShape::parameters(int64_t hidden) const {
  // The latents are normalised, each with a vector of its size.
  int64_t n = latent ? q_lora_rank + kv_lora_rank : 0;
  for (const Projection& p : attention_projections(*this, hidden)) n += p.n * p.k;
  return n;
}

int64_t AttentionShape::cache_elements_per_token() const {
  return latent ? kv_lora_rank + rope_dim : int64_t{num_kv_heads} * (qk_dim + v_dim);
}

int64_t ModelShape::total_parameters() const {
  const int64_t ffn = 3 * hidden;  // gate, up and down, by inner size
  const int64_t each_layer = attention.parameters(hidden) + 2 * hidden;
  const int64_t moe_layer =
      num_experts * (ffn * moe.inner + hidden) + ffn * (moe.shared_inner + residual_inner);  // a router row an expert
  return vocab_size * hidden * (tie_embeddings ? 1 : 2) + hidden + num_layers * each_layer +
         num_dense_layers * ffn * dense_inner + num_moe_layers() * moe_layer;
}

ModelShape shape_of(const model::ModelSpec& spec, std::string name) {
  const ops::MlaParams& mla = spec.attention.mla;
  const ops::GateParams& gate = spec.moe.gate;
  ModelShape shape;
  shape.name = std::move(name);
  shape.num_layers = spec.num_layers();
  shape.num_dense_layers = spec.num_layers() - spec.num_moe_layers();
  for (const model::LayerSpec& layer : spec.layers) shape.dense_inner = std::max(shape.dense_inner, layer.dense_inner);
  shape.hidden = spec.hidden;
  shape.vocab_size = spec.vocab_size;
  shape.tie_embeddings = spec.tie_embeddings;
  shape.attention = {.latent = true,
                     .num_heads = mla.num_heads,
                     .qk_dim = mla.q_dim(),
                     .v_dim = mla.v_dim,
                     .q_lora_rank = spec.attention.q_lora_rank,
                     .kv_lora_rank = mla.kv_lora_rank,
                     .rope_dim = mla.rope_dim};
  shape.moe.hidden = spec.hidden;
  shape.moe.inner = spec.moe.inner;
  shape.moe.shared_inner = spec.moe.shared_inner;
  shape.moe.top_k = gate.top_k;
  shape.num_experts = gate.num_experts;
  if (gate.method == ops::TopkMethod::kGroupLimitedGreedy) {
    shape.num_groups = gate.num_groups;
    shape.topk_group = gate.topk_group;
  }
  return shape;
}

std::vector<std::string_view> shape_preset_names() {
  std::vector<std::string_view> names(kLatentModels.begin(), kLatentModels.end());
  for (const GroupedQueryModel& model : kGroupedQueryModels) names.push_back(model.name);
  return names;
}

ModelShape shape_preset(std::string_view name) {
  if (std::ranges::find(kLatentModels, name) != kLatentModels.end()) {
    return shape_of(model::preset_spec(name), std::string(name));
  }
  for (const GroupedQueryModel& model : kGroupedQueryModels) {
    if (model.name == name) return shape_of(model);
  }
  fail(ErrorKind::kUsage, "model",
       {.what = "unknown preset",
        .got = std::string(name),
        .wanted = fmt::format("one of {}", fmt::join(shape_preset_names(), ", ")),
        .hint = ""});
}

double memory_gb_per_rank(const ModelShape& shape, plan::Strategy strategy, int num_ranks, int64_t tokens_per_rank) {
  const bool heads_split = strategy != plan::Strategy::kDpEp;
  const bool experts_split = strategy == plan::Strategy::kTpTp;  // by inner size, instead of assigned whole
  const double ranks = num_ranks;
  const double over_heads = heads_split ? ranks : 1;
  const double over_inner = experts_split ? ranks : 1;
  const auto act = static_cast<double>(size_of(shape.moe.act_dtype));
  const auto weight = static_cast<double>(size_of(shape.moe.weight_dtype));
  const auto hidden = static_cast<double>(shape.hidden);

  double attention = 0;
  for (const Projection& p : attention_projections(shape.attention, shape.hidden)) {
    const Projection part = heads_split ? part_of(p, shape.attention, num_ranks) : p;
    attention += static_cast<double>(part.n) * static_cast<double>(part.k);
  }
  const double experts = shape.num_experts * 3.0 * hidden * static_cast<double>(shape.moe.inner) / ranks;
  const double beside = 3.0 * hidden * static_cast<double>(shape.moe.shared_inner + shape.residual_inner) / over_inner;
  const double dense = 3.0 * hidden * static_cast<double>(shape.dense_inner) / over_heads;
  const double linear =
      shape.num_layers * attention + shape.num_moe_layers() * (experts + beside) + shape.num_dense_layers * dense;
  // Embedding, head, router and norms are stored in the activations' type.
  const double rest = static_cast<double>(shape.vocab_size) * hidden * (shape.tie_embeddings ? 1 : 2) / over_heads +
                      shape.num_moe_layers() * static_cast<double>(shape.num_experts) * hidden;

  const double own = static_cast<double>(tokens_per_rank);
  const double seen = heads_split ? own * ranks : own;  // tokens that attention on this rank processes
  double cached = static_cast<double>(shape.attention.cache_elements_per_token());
  if (heads_split && !shape.attention.latent) cached /= std::min(num_ranks, shape.attention.num_kv_heads);
  const double cache = shape.num_layers * seen * cached;

  // Working memory of an MoE layer: the residual stream, its normalised copy and the output; for every row its input
  // and output, and its gate, up and product.
  const double rows = own * shape.moe.top_k * (experts_split ? ranks : 1);
  const double working =
      3 * seen * hidden + rows * (2 * hidden + 3 * static_cast<double>(shape.moe.inner) / over_inner);
  return (linear * weight + (rest + cache + working) * act) / kBytesPerGb;
}

}  // namespace eps::sim
