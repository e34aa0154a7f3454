// Reads and checks the "model" part of tokenizer.json.
#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "io/tokenizer/bpe.h"

namespace eps::io::tok {
namespace {

void refuse_affix(const JsonObject& json, std::string_view key) {
  if (!json.get_or<std::string>(key, "").empty()) json.reject(key, "none (subword affixes are not supported)");
}

}  // namespace

BpeModel::BpeModel(const JsonObject& json) : where_(json.where()) {
  if (json.get_or<std::string>("type", "BPE") != "BPE") {
    json.reject("type", "BPE", "a model whose tokenizer is byte pair encoding");
  }
  if (json.get_or<double>("dropout", 0.0) != 0.0) json.reject("dropout", "none: encoding must be deterministic");
  refuse_affix(json, "continuing_subword_prefix");
  refuse_affix(json, "end_of_word_suffix");
  fuse_unk_ = json.get_or<bool>("fuse_unk", false);
  byte_fallback_ = json.get_or<bool>("byte_fallback", false);
  ignore_merges_ = json.get_or<bool>("ignore_merges", false);
  read_vocabulary(json.child("vocab"));
  if (const auto unk = json.optional<std::string>("unk_token")) {
    has_unk_ = true;
    unk_token_ = *unk;
    unk_id_ = token_to_id(*unk).value_or(kAbsent);
  }
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    byte_ids_[byte] = token_to_id(fmt::format("<0x{:02X}>", byte)).value_or(kAbsent);
  }
  for (char32_t c = 0; c < short_character_ids_.size(); ++c) {
    std::string text;
    utf8_append(text, c);
    short_character_ids_[c] = token_to_id(text).value_or(kAbsent);
  }
  read_merges(json);
}

void BpeModel::read_vocabulary(const JsonObject& json) {
  // Tables and the embedding are indexed by id. Ids far beyond the number of tokens are an error of the file, and would
  // take an amount of memory out of proportion to its size.
  constexpr uint64_t kIdsPerToken = 8;
  constexpr uint64_t kAnyVocabulary = 1 << 16;
  const uint64_t max_id =
      std::min(static_cast<uint64_t>(kMaxTokenId), kIdsPerToken * json.value().size() + kAnyVocabulary);
  ids_.reserve(json.value().size());
  for (const auto& [token, id] : json.value().items()) {
    const bool fits = id.is_number_unsigned() && id.get<uint64_t>() <= max_id;
    if (!fits) {
      json.reject(token, fmt::format("an id from 0 to {} in a vocabulary of {}", max_id, json.value().size()));
    }
    const auto index = static_cast<size_t>(id.get<uint64_t>());
    if (index >= tokens_.size()) tokens_.resize(index + 1);
    if (tokens_[index].has_value()) {
      json.reject(token, fmt::format("a unique id, because \"{}\" has this one", *tokens_[index]));
    }
    texts_.push_back(token);
    tokens_[index] = texts_.back();
    const auto [it, added] = ids_.emplace(texts_.back(), static_cast<int32_t>(index));
    // The standard library's hash function is known, so a file can contain texts that were constructed to collide.
    constexpr size_t kMaxSameBucket = 256;
    if (ids_.bucket_size(ids_.bucket(it->first)) > kMaxSameBucket) {
      json.reject(token, "tokens whose hashes differ", "the tokenizer.json that belongs to the model");
    }
  }
}

void BpeModel::read_merges(const JsonObject& json) {
  const Json* merges = json.find("merges");
  if (merges == nullptr || !merges->is_array()) json.reject("merges", "a list of merges");
  std::vector<MergeTable::Entry> entries;
  entries.reserve(merges->size());
  const auto add = [&](const std::string& left, const std::string& right) {
    entries.push_back(make_merge(static_cast<int32_t>(entries.size()), left, right));
  };
  for (size_t i = 0; i < merges->size(); ++i) {
    const Json& merge = (*merges)[i];
    const auto refuse = [&] {
      fail(ErrorKind::kInput, where_,
           {fmt::format("{}[{}] is not a merge", json.path_of("merges"), i),
            describe_json(merge),
            "\"left right\" or [\"left\", \"right\"]",
            {}});
    };
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;  // the first line of the merges.txt the file was made from
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) refuse();
      add(text.substr(0, space), text.substr(space + 1));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      add(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      refuse();
    }
  }
  merges_ = make_table(entries);
  find_joints(entries);
}

MergeTable BpeModel::make_table(const std::vector<MergeTable::Entry>& entries) const {
  auto table = MergeTable::make(entries);
  if (!table) {
    fail(ErrorKind::kInput, where_,
         {"the merges are constructed to collide in a hash table",
          {},
          {},
          "the tokenizer.json that belongs to the model"});
  }
  return *std::move(table);
}

MergeTable::Entry BpeModel::make_merge(int32_t rank, const std::string& left, const std::string& right) const {
  const auto id_of = [&](const std::string& token) {
    const auto id = token_to_id(token);
    if (!id) {
      fail(ErrorKind::kInput, where_,
           {fmt::format("the merge of \"{}\" and \"{}\" needs a token that is not in the vocabulary", left, right),
            token,
            {},
            {}});
    }
    return *id;
  };
  return {id_of(left), id_of(right), {rank, id_of(left + right)}};
}

// Everything that is merged consists of characters, and its text is that of the characters, unless a merge involves a
// byte or the unknown token, whose names are not their text. No known file has such a merge; if there is one, any two
// symbols may be joined.
void BpeModel::find_joints(const std::vector<MergeTable::Entry>& merges) {
  std::vector<MergeTable::Entry> joints;
  joints.reserve(merges.size());
  for (const MergeTable::Entry& merge : merges) {
    if (is_byte_or_unknown(merge.left) || is_byte_or_unknown(merge.right)) return;
    const std::string_view left = *id_to_token(merge.left);
    const std::string_view right = *id_to_token(merge.right);
    if (left.empty() || right.empty()) return;
    const int32_t last = character_id(left.substr(utf8_character_before(left, left.size())));
    const int32_t first = character_id(right.substr(0, utf8_sequence_length(right, 0)));
    // A character without an id is not an initial symbol, so this merge can never happen.
    if (last != kAbsent && first != kAbsent) joints.push_back({last, first, {}});
  }
  std::ranges::sort(joints, {}, [](const MergeTable::Entry& joint) { return std::pair(joint.left, joint.right); });
  const auto same = [](const MergeTable::Entry& a, const MergeTable::Entry& b) {
    return a.left == b.left && a.right == b.right;
  };
  joints.erase(std::unique(joints.begin(), joints.end(), same), joints.end());
  joints_ = make_table(joints);
  has_joints_ = true;
}

bool BpeModel::is_byte_or_unknown(int32_t id) const {
  const std::string_view text = *id_to_token(id);
  if (has_unk_ && id == unk_id_) return text.empty() || utf8_sequence_length(text, 0) != text.size();
  return text.starts_with("<0x") && std::ranges::find(byte_ids_, id) != byte_ids_.end();
}

}  // namespace eps::io::tok
