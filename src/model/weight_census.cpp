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

  Classifier(const ModelSpec& spec, const Family& family, const io::Checkpoint& checkpoint, const StoredNames& names)
      : spec_(spec), checkpoint_(checkpoint), names_(names) {
    for (std::string& name : weight_names(spec, family)) used_.insert(std::move(name));
    const LayerNames n = family.layer_names(0);
    const MlpNames expert = family.expert_names(0, 0);
    const GlobalNames g = family.global_names();
    for (const auto* name : {&n.input_norm, &n.post_attention_norm,
                             &n.q,          &n.q_a,
                             &n.q_a_norm,   &n.q_b,
                             &n.kv_a,       &n.kv_a_norm,
                             &n.kv_b,       &n.o,
                             &n.q_a_bias,   &n.kv_a_bias,
                             &n.o_bias,     &n.router,
                             &n.dense.gate, &n.dense.up,
                             &n.dense.down, &n.shared.gate,
                             &n.shared.up,  &n.shared.down,
                             &expert.gate,  &expert.up,
                             &expert.down,  &g.embedding,
                             &g.final_norm, &g.lm_head}) {
      modules_.insert(without_numbers(split(*name).module));
    }
    lm_head_ = g.lm_head;
    layers_prefix_ = n.input_norm.substr(0, n.input_norm.find('0'));  // "model.layers."
  }

  bool is_used(const std::string& stored) const {
    const std::string name = names_.canonical(stored);
    if (spec_.tie_embeddings && name == lm_head_) return true;  // equal to the embedding (see untie_if_different)
    return used_.contains(name) && names_.stored(name) == stored;
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

  const ModelSpec& spec_;
  const io::Checkpoint& checkpoint_;
  const StoredNames& names_;
  std::set<std::string, std::less<>> used_;
  std::set<std::string, std::less<>> modules_;  // modules of the family, with * for numbers
  std::string layers_prefix_;
  std::string lm_head_;
};

void append(std::vector<std::string>& out, const MlpNames& names) {
  out.insert(out.end(), {names.gate, names.up, names.down});
}

}  // namespace

std::vector<std::string> weight_names(const ModelSpec& spec, const Family& family) {
  const GlobalNames globals = family.global_names();
  std::vector<std::string> out = {globals.embedding, globals.final_norm};
  if (!spec.tie_embeddings) out.push_back(globals.lm_head);
  for (int layer = 0; layer < spec.num_layers(); ++layer) {
    const LayerNames n = family.layer_names(layer);
    const bool low_rank = spec.attention.q_lora_rank > 0;
    out.insert(out.end(), {n.input_norm, n.post_attention_norm, n.kv_a, n.kv_a_norm, n.kv_b, n.o});
    if (low_rank) {
      out.insert(out.end(), {n.q_a, n.q_a_norm, n.q_b});
    } else {
      out.push_back(n.q);
    }
    if (spec.attention.bias) {
      if (low_rank) out.push_back(n.q_a_bias);
      out.insert(out.end(), {n.kv_a_bias, n.o_bias});
    }
    if (!spec.layers[static_cast<size_t>(layer)].is_moe()) {
      append(out, n.dense);
      continue;
    }
    out.push_back(n.router);
    for (int e = 0; e < spec.moe.gate.num_experts; ++e) append(out, family.expert_names(layer, e));
    if (spec.moe.shared_inner > 0) append(out, n.shared);
  }
  return out;
}

WeightCensus take_census(const ModelSpec& spec, const Family& family, const io::Checkpoint& checkpoint,
                         const StoredNames& names) {
  const Classifier classifier(spec, family, checkpoint, names);
  WeightCensus census;
  census.layers_prefix = names.stored(classifier.layers_prefix());
  census.num_layers = spec.num_layers();
  for (std::string& name : checkpoint.names()) {
    if (classifier.is_used(name)) {
      census.used_bytes += checkpoint.info(name).num_bytes();
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
