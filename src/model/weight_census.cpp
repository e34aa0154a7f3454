#include "model/weight_census.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "base/error.h"
#include "model/unpack_weights.h"

namespace eps::model {
namespace {

// Calls body(part) for the parts of a dotted name.
template <typename Body>
void for_each_part(std::string_view name, const Body& body) {
  while (true) {
    const size_t dot = name.find('.');
    body(name.substr(0, dot));
    if (dot == std::string_view::npos) return;
    name.remove_prefix(dot + 1);
  }
}

bool is_number(std::string_view part) {
  return !part.empty() && std::ranges::all_of(part, [](unsigned char c) { return std::isdigit(c) != 0; });
}

// "model.layers.*.mlp.experts.*.up_proj.weight"
std::string without_numbers(std::string_view name) {
  std::string out;
  for_each_part(name, [&out](std::string_view part) {
    if (!out.empty()) out += '.';
    out += is_number(part) ? "*" : part;
  });
  return out;
}

struct ModuleAndParameter {
  std::string_view module;
  std::string_view parameter;  // "weight"
};

ModuleAndParameter split(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {{}, name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

bool is_weight_or_bias(std::string_view parameter) { return parameter == "weight" || parameter == "bias"; }

// The number after `layers_prefix`, or none.
std::optional<int64_t> layer_of(std::string_view name, std::string_view layers_prefix) {
  if (!name.starts_with(layers_prefix)) return std::nullopt;
  name.remove_prefix(layers_prefix.size());
  int64_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const bool ok = error == std::errc() && end != name.data() + name.size() && *end == '.' && layer >= 0;
  return ok ? std::optional<int64_t>(layer) : std::nullopt;
}

class Classifier {
 public:
  enum class Class { kSkipped, kSuspicious, kMisplaced };

  Classifier(const arch::ModelSpec& spec, const arch::Family& family, const io::Checkpoint& checkpoint,
             const StoredNames& names)
      : spec_(spec), checkpoint_(checkpoint), names_(names) {
    for (std::string& name : weight_names(spec, family)) used_.insert(std::move(name));
    const arch::GlobalNames g = family.global_names();
    const arch::LayerNames n = family.layer_names(spec, 0);
    const arch::MlpNames expert = family.expert_names(spec, 0, 0);
    for (const std::string* name : {&g.embedding, &g.final_norm, &g.lm_head}) add_module(*name);
    for (const arch::StoredTensor* tensor : n.all()) add_module(tensor->name);
    for (const arch::StoredTensor* tensor :
         {&expert.gate, &expert.up, &expert.down, &expert.gate_bias, &expert.up_bias, &expert.down_bias}) {
      if (!tensor->empty()) add_module(tensor->name);
    }
    lm_head_ = g.lm_head;
    layers_prefix_ = n.input_norm.name.substr(0, n.input_norm.name.find('0'));  // "model.layers."
  }

  bool is_used(const std::string& stored) const {
    const std::string name = names_.canonical(stored);
    if (spec_.tie_embeddings && name == lm_head_) return true;  // equal to the embedding (see untie_if_different)
    if (used_.contains(name) && names_.stored(name) == stored) return true;
    return is_scale(stored) || is_packed(stored, kMxfp4BlocksSuffix) || is_packed(stored, kMxfp4ScalesSuffix);
  }

  // How many bytes loading a stored byte yields: matrices in e4m3 become bf16, of twice their size; two values of MXFP4
  // in a byte become four bytes; scales are not counted.
  uint64_t unpacked(const std::string& stored, uint64_t bytes) const {
    if (is_scale(stored) || is_packed(stored, kMxfp4ScalesSuffix)) return 0;
    if (is_packed(stored, kMxfp4BlocksSuffix)) return 4 * bytes;
    return bytes * (io::is_e4m3(checkpoint_.info(stored)) ? 2 : 1);
  }

  const std::string& layers_prefix() const { return layers_prefix_; }

  Class classify(const std::string& stored) const {
    const std::string name = names_.canonical(stored);
    if (is_buffer(name)) return Class::kSkipped;
    const std::optional<int64_t> layer = layer_of(name, layers_prefix_);
    if (layer && *layer >= spec_.num_layers()) {
      return *layer < int64_t{spec_.num_layers()} + spec_.num_mtp_layers ? Class::kSkipped : Class::kSuspicious;
    }
    if (predicts_further_tokens(name)) return Class::kSkipped;
    const auto [module, parameter] = split(name);
    const bool is_known = modules_.contains(without_numbers(module));
    if (is_known && is_weight_or_bias(parameter)) return Class::kMisplaced;
    const std::optional<DType> dtype = io::known_dtype(checkpoint_.info(stored));
    if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) return Class::kSkipped;
    if (is_known || is_copy(name)) return Class::kSuspicious;
    return layer && is_weight_or_bias(parameter) ? Class::kSuspicious : Class::kSkipped;
  }

 private:
  // The scales of a matrix in e4m3, which are read with it.
  bool is_scale(const std::string& stored) const {
    if (!spec_.fp8_blocks || !stored.ends_with(kFp8ScaleSuffix)) return false;
    const std::string weight = stored.substr(0, stored.size() - kFp8ScaleSuffix.size());
    return checkpoint_.has(weight) && io::is_e4m3(checkpoint_.info(weight)) && is_used(weight);
  }

  // A part of a stack of matrices in MXFP4.
  bool is_packed(const std::string& stored, std::string_view suffix) const {
    if (!spec_.mxfp4 || !stored.ends_with(suffix)) return false;
    return used_.contains(names_.canonical(stored.substr(0, stored.size() - suffix.size())));
  }

  void add_module(const std::string& name) { modules_.insert(without_numbers(split(name).module)); }

  static bool is_buffer(std::string_view name) {
    constexpr std::array<std::string_view, 7> kBuffers = {
        "inv_freq", "original_inv_freq", "cos_cached", "sin_cached", "position_ids", "masked_bias", "freqs_cis"};
    return std::ranges::find(kBuffers, split(name).parameter) != kBuffers.end();
  }

  static bool predicts_further_tokens(std::string_view name) {
    bool found = false;
    for_each_part(name, [&found](std::string_view part) { found |= part == "mtp" || part == "nextn"; });
    return found;
  }

  // Whether the name, with a prefix added or removed, is that of a weight of the model.
  bool is_copy(std::string_view name) const {
    while (true) {
      if (used_.contains(std::string(name)) || used_.contains(names_.family_prefix() + std::string(name))) return true;
      const size_t dot = name.find('.');
      if (dot == std::string_view::npos) return false;
      name.remove_prefix(dot + 1);
    }
  }

  const arch::ModelSpec& spec_;
  const io::Checkpoint& checkpoint_;
  const StoredNames& names_;
  std::set<std::string, std::less<>> used_;
  std::set<std::string, std::less<>> modules_;  // modules of the family, with * for numbers
  std::string layers_prefix_;
  std::string lm_head_;
};

void append(std::vector<std::string>& out, std::initializer_list<const arch::StoredTensor*> tensors) {
  for (const arch::StoredTensor* tensor : tensors) out.push_back(tensor->name);
}

void append(std::vector<std::string>& out, const arch::MlpNames& names) {
  append(out, {&names.gate, &names.up, &names.down});
}

void append_attention(std::vector<std::string>& out, const arch::AttentionSpec& spec, const arch::LayerNames& n) {
  append(out, {&n.o});
  if (const arch::LatentAttention* latent = spec.latent()) {
    const bool low_rank = latent->q_lora_rank > 0;
    append(out, {&n.kv_a, &n.kv_a_norm, &n.kv_b});
    if (low_rank) {
      append(out, {&n.q_a, &n.q_a_norm, &n.q_b});
    } else {
      append(out, {&n.q});
    }
    if (latent->bias) append(out, {&n.kv_a_bias, &n.o_bias});
    if (latent->bias && low_rank) append(out, {&n.q_a_bias});
    return;
  }
  const arch::GroupedAttention& grouped = *spec.grouped();
  append(out, {&n.q, &n.k, &n.v});
  if (grouped.qkv_bias) append(out, {&n.q_bias, &n.k_bias, &n.v_bias});
  if (grouped.o_bias) append(out, {&n.o_bias});
  if (grouped.qk_norm != arch::QkNorm::kNone) append(out, {&n.q_norm, &n.k_norm});
  if (grouped.sinks) append(out, {&n.sinks});
}

void append_moe(std::vector<std::string>& out, const arch::ModelSpec& spec, const arch::Family& family, int layer,
                const arch::LayerNames& n) {
  const arch::MoeSpec& moe = spec.moe;
  append(out, {&n.router});
  if (moe.router_bias) append(out, {&n.router_bias});
  if (moe.gate.correction) append(out, {&n.router_correction});
  for (int e = 0; e < moe.gate.num_experts; ++e) {
    const arch::MlpNames names = family.expert_names(spec, layer, e);
    append(out, names);
    if (moe.expert_bias) append(out, {&names.gate_bias, &names.up_bias, &names.down_bias});
  }
  if (moe.shared_inner > 0) append(out, n.shared);
  if (moe.shared_gate) append(out, {&n.shared_gate});
  if (moe.residual_inner > 0) {
    append(out, n.residual);
    append(out, {&n.residual_norm});
  }
}

}  // namespace

std::vector<std::string> weight_names(const arch::ModelSpec& spec, const arch::Family& family) {
  const arch::GlobalNames globals = family.global_names();
  std::vector<std::string> out = {globals.embedding, globals.final_norm};
  if (!spec.tie_embeddings) out.push_back(globals.lm_head);
  for (int layer = 0; layer < spec.num_layers(); ++layer) {
    const arch::LayerNames n = family.layer_names(spec, layer);
    append(out, {&n.input_norm, &n.post_attention_norm});
    append_attention(out, spec.attention, n);
    if (spec.layers[static_cast<size_t>(layer)].is_moe()) {
      append_moe(out, spec, family, layer, n);
    } else {
      append(out, n.dense);
    }
  }
  return out;
}

WeightCensus take_census(const arch::ModelSpec& spec, const arch::Family& family, const io::Checkpoint& checkpoint,
                         const StoredNames& names) {
  const Classifier classifier(spec, family, checkpoint, names);
  WeightCensus census;
  census.layers_prefix = names.stored(classifier.layers_prefix());
  census.num_layers = spec.num_layers();
  for (std::string& name : checkpoint.names()) {
    if (classifier.is_used(name)) {
      census.used_bytes += classifier.unpacked(name, checkpoint.info(name).num_bytes());
      continue;
    }
    switch (classifier.classify(name)) {
      case Classifier::Class::kSkipped: census.skipped.push_back(std::move(name)); break;
      case Classifier::Class::kSuspicious: census.suspicious.push_back(std::move(name)); break;
      case Classifier::Class::kMisplaced: census.misplaced.push_back(std::move(name)); break;
    }
  }
  return census;
}

void refuse_misplaced(const WeightCensus& census, const io::Checkpoint& checkpoint) {
  if (census.misplaced.empty()) return;
  const size_t others = census.misplaced.size() - 1;
  fail(ErrorKind::kInput, checkpoint.file(census.misplaced.front()).path(),
       {.what = fmt::format("tensor \"{}\"{}: the checkpoint has a weight that the model of config.json does not have",
                            printable(census.misplaced.front(), 120),
                            others == 0 ? "" : fmt::format(" and {} more", others)),
        .got = "",
        .wanted = "",
        .hint = "the config.json that belongs to these weights"});
}

std::string summarize(const WeightCensus& census, const std::vector<std::string>& names) {
  constexpr size_t kMaxGroups = 16;
  std::map<std::string, std::vector<const std::string*>> groups;
  for (const std::string& name : names) {
    const std::optional<int64_t> layer = layer_of(name, census.layers_prefix);
    const bool is_beyond = layer && *layer >= census.num_layers;
    groups[is_beyond ? fmt::format("{}{}.*", census.layers_prefix, *layer) : without_numbers(name)].push_back(&name);
  }
  std::string out;
  size_t listed = 0;
  size_t rest = 0;
  for (const auto& [pattern, members] : groups) {
    if (listed == kMaxGroups) {
      rest += members.size();
      continue;
    }
    ++listed;
    const bool is_one = members.size() == 1;
    out += fmt::format("{}{}{}", out.empty() ? "" : ", ", printable(is_one ? *members.front() : pattern, 120),
                       is_one ? "" : fmt::format(" ({})", members.size()));
  }
  if (rest > 0) out += fmt::format(" and {} more", rest);
  return out;
}

}  // namespace eps::model
