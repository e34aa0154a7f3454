#include "measure/layer_source.h"

#include "arch/presets.h"
#include "base/error.h"
#include "engine/model_folder.h"
#include "engine/profile_choice.h"

namespace eps::measure {
namespace {

void set_num_experts(arch::ModelSpec& spec, int num_experts, bool dummy) {
  if (num_experts == 0) return;
  ops::GateParams& gate = spec.moe.gate;
  if (!dummy) refuse("num_experts", "a model with weights has its own number of experts", "", "", "`dummy_weights`");
  if (num_experts < gate.top_k || num_experts > gate.num_experts) {
    refuse("num_experts", "out of range", std::to_string(num_experts),
           fmt::format("{} (top-k) to {} (the model's)", gate.top_k, gate.num_experts));
  }
  if (num_experts != gate.num_experts)
    gate.method = ops::TopkMethod::kGreedy;  // the groups are defined for all experts only
  gate.num_experts = num_experts;
}

// The baselines that a layer is compared with have only plain SwiGLU experts and shared experts.
void require_plain_experts(const LayerSource& source) {
  const arch::MoeSpec& moe = source.spec.moe;
  const std::pair<bool, const char*> features[] = {{moe.expert_bias, "experts with biases"},
                                                   {moe.swiglu != ops::SwigluParams{}, "a clamped SwiGLU activation"},
                                                   {moe.shared_gate, "gated shared experts"}};
  for (const auto& [is_present, what] : features) {
    if (!is_present) continue;
    fail(ErrorKind::kInput, source.name,
         {.what = fmt::format("has {}, which the baselines of this benchmark do not", what),
          .got = "",
          .wanted = "",
          .hint = "another model"});
  }
}

}  // namespace

void refuse(const std::string& field, const std::string& what, const std::string& got, const std::string& wanted,
            const std::string& hint) {
  fail(ErrorKind::kUsage, field, {.what = what, .got = got, .wanted = wanted, .hint = hint});
}

void require_in_range(const char* field, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return;
  fail(ErrorKind::kUsage, field,
       {.what = "out of range",
        .got = std::to_string(value),
        .wanted = fmt::format("{} to {}", least, most),
        .hint = ""});
}

LayerSource open_layer_source(const LayerChoice& choice) {
  LayerSource out;
  const EngineOptions& engine = choice.engine;
  const bool dummy = engine.dummy_weights || !choice.preset.empty();
  if (!choice.preset.empty()) {
    if (!engine.model.empty()) refuse("preset", "given together with `model`", engine.model, "one of the two");
    out.name = choice.preset;
    out.spec = arch::preset_spec(choice.preset);
    out.family = &arch::find_preset_family(choice.preset);
  } else {
    // The weights outside the layer are not needed and need not be valid, so the folder is opened as for dummy weights,
    // and its checkpoint separately.
    const engine::ModelFolder folder =
        engine::open_model_folder(engine.model, dummy || !engine::is_preset(engine.model));
    out.name = engine.model;
    out.spec = folder.spec;
    out.family = folder.family;
    if (!dummy) out.checkpoint = std::make_unique<io::Checkpoint>(io::Checkpoint::open(engine.model));
    if (!engine::is_preset(engine.model)) out.stored = engine::stored_dtype(folder);
  }
  if (out.spec.first_moe_layer() < 0) {
    fail(ErrorKind::kInput, out.name, {.what = "has no MoE layer", .got = "", .wanted = "", .hint = "another model"});
  }
  require_plain_experts(out);
  set_num_experts(out.spec, choice.num_experts, dummy);
  out.weights = out.checkpoint ? model::make_checkpoint_source(
                                     *out.checkpoint, model::StoredNames(out.spec, *out.family, *out.checkpoint),
                                     out.spec.fp8_blocks)
                               : model::make_dummy_source(0, engine.stop);
  return out;
}

std::vector<moe::Routing> sample_routing(const LayerSource& source, int num_ranks, int64_t tokens_per_rank,
                                         sim::Skew skew, uint64_t seed) {
  const ops::GateParams& gate = source.spec.moe.gate;
  const bool grouped = gate.limits_groups();
  return sim::random_routing({.num_ranks = num_ranks,
                              .tokens_per_rank = tokens_per_rank,
                              .num_experts = gate.num_experts,
                              .top_k = gate.top_k,
                              .num_groups = grouped ? gate.num_groups : 1,
                              .topk_group = grouped ? gate.topk_group : 1,
                              .skew = skew,
                              .seed = seed});
}

plan::HardwareProfile profile_of(const EngineOptions& engine, const std::string& op_set, int threads, DType stored) {
  const auto link = engine.emulate_link.empty()
                        ? std::nullopt
                        : std::optional<comm::LinkSpec>(comm::parse_link_spec(engine.emulate_link));
  return engine::choose_profile({.requested = engine.profile,
                                 .op_set = op_set,
                                 .threads = threads,
                                 .num_ranks = engine.ep,
                                 .weight_dtype = stored,
                                 .emulated_link = link})
      .profile;
}

}  // namespace eps::measure
