// Reading and checking the "model" part of tokenizer.json.
#include "base/error.h"
#include "base/utf8.h"
#include "io/tokenizer/bpe.h"

namespace eps::tok {
namespace {

void refuse_affix(const JsonObject& json, std::string_view key) {
  if (!json.get_or<std::string>(key, "").empty()) json.reject(key, "none (subword affixes are not supported)");
}

}  // namespace

BpeModel::BpeModel(const JsonObject& json) : where_(json.where()) {
  if (json.get_or<std::string>("type", "BPE") != "BPE") {
    json.reject("type", "BPE", "a model whose tokenizer is byte pair encoding");
  }
  if (json.get_or<double>("dropout", 0.0) != 0.0) json.reject("dropout", "none: encoding has to be repeatable");
  refuse_affix(json, "continuing_subword_prefix");
  refuse_affix(json, "end_of_word_suffix");
  fuse_unk_ = json.get_or<bool>("fuse_unk", false);
  byte_fallback_ = json.get_or<bool>("byte_fallback", false);
  ignore_merges_ = json.get_or<bool>("ignore_merges", false);
  read_vocabulary(json.child("vocab"));
  read_merges(json);
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
}

void BpeModel::read_vocabulary(const JsonObject& json) {
  ids_.reserve(json.value().size());
  for (const auto& [token, id] : json.value().items()) {
    const bool fits = id.is_number_unsigned() && id.get<uint64_t>() <= static_cast<uint64_t>(kMaxTokenId);
    if (!fits) json.reject(token, fmt::format("an id from 0 to {}", kMaxTokenId));
    const auto index = static_cast<size_t>(id.get<uint64_t>());
    if (index >= tokens_.size()) tokens_.resize(index + 1);
    if (tokens_[index].has_value()) {
      json.reject(token, fmt::format("an id of its own, because \"{}\" has this one", *tokens_[index]));
    }
    texts_.push_back(token);
    tokens_[index] = texts_.back();
    ids_.emplace(texts_.back(), static_cast<int32_t>(index));
  }
}

void BpeModel::read_merges(const JsonObject& json) {
  const Json* merges = json.find("merges");
  if (merges == nullptr || !merges->is_array()) json.reject("merges", "a list of merges");
  merges_ = MergeTable(merges->size());
  int32_t rank = 0;
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
      add_merge(rank++, text.substr(0, space), text.substr(space + 1));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      add_merge(rank++, merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      refuse();
    }
  }
}

void BpeModel::add_merge(int32_t rank, const std::string& left, const std::string& right) {
  const auto id_of = [&](const std::string& token) {
    const auto id = token_to_id(token);
    if (!id) {
      fail(ErrorKind::kInput, where_,
           {fmt::format("the merge of \"{}\" and \"{}\" needs a token that the vocabulary lacks", left, right),
            token,
            {},
            {}});
    }
    return *id;
  };
  merges_.insert(id_of(left), id_of(right), {rank, id_of(left + right)});
}

}  // namespace eps::tok
