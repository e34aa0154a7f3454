#include "model/stored_names.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace eps::model {
namespace {

// The prefix of a module: everything before the last two parts, "model." for "model.embed_tokens.weight".
std::string prefix_of_module(const std::string& weight) {
  const size_t last = weight.rfind('.');
  const size_t module = last == std::string::npos || last == 0 ? std::string::npos : weight.rfind('.', last - 1);
  return module == std::string::npos ? "" : weight.substr(0, module + 1);
}

// The prefix of the name that ends with `suffix`, or nothing if there is no such name or more than one.
std::optional<std::string> only_prefix(const std::vector<std::string>& names, std::string_view suffix) {
  std::optional<std::string> found;
  for (const std::string& name : names) {
    if (!name.ends_with(suffix)) continue;
    std::string prefix = name.substr(0, name.size() - suffix.size());
    if (!prefix.empty() && prefix.back() != '.') continue;
    // A prefix with a number belongs to an additional layer for multi-token prediction.
    if (std::ranges::any_of(prefix, [](unsigned char c) { return std::isdigit(c) != 0; })) continue;
    if (found) return std::nullopt;
    found = std::move(prefix);
  }
  return found;
}

}  // namespace

StoredNames::StoredNames(const arch::ModelSpec& spec, const arch::Family& family, const io::Checkpoint& checkpoint) {
  const arch::GlobalNames globals = family.global_names();
  embedding_ = globals.embedding;
  lm_head_ = stored_lm_head_ = globals.lm_head;
  prefix_ = family_prefix_ = prefix_of_module(embedding_);
  const std::string first_norm = family.layer_names(spec, 0).input_norm.name;
  const std::vector<std::string> names = checkpoint.names();
  if (!checkpoint.has(first_norm)) {
    prefix_ = only_prefix(names, std::string_view(first_norm).substr(family_prefix_.size())).value_or(family_prefix_);
  }
  if (!checkpoint.has(lm_head_)) {
    if (const auto before = only_prefix(names, lm_head_)) stored_lm_head_ = *before + lm_head_;
  }
  embedding_is_lm_head_ = spec.tie_embeddings && !checkpoint.has(stored(embedding_)) && checkpoint.has(stored_lm_head_);
}

std::string StoredNames::stored(std::string_view name) const {
  if (name == lm_head_ || (name == embedding_ && embedding_is_lm_head_)) return stored_lm_head_;
  if (!name.starts_with(family_prefix_)) return std::string(name);
  return prefix_ + std::string(name.substr(family_prefix_.size()));
}

std::string StoredNames::canonical(std::string_view stored) const {
  if (stored == stored_lm_head_) return lm_head_;
  if (!stored.starts_with(prefix_)) return std::string(stored);
  return family_prefix_ + std::string(stored.substr(prefix_.size()));
}

}  // namespace eps::model
