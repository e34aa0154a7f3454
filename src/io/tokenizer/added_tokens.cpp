#include "io/tokenizer/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "io/tokenizer/unicode.h"

namespace eps::tok {
namespace {

std::string normalize(std::string_view text, const Normalizers& normalizers, RegexScratch& scratch) {
  Piece piece;
  piece.text = std::string(text);
  for (const auto& normalizer : normalizers) normalizer->apply(piece, scratch);
  return piece.text;
}

// Start of the character that ends at `end`.
size_t character_before(std::string_view text, size_t end) {
  do {
    --end;
  } while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80);
  return end;
}

size_t skip_spaces_back(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t before = character_before(text, end);
    if (!is_whitespace(utf8_decode(text, before))) break;
    end = before;
  }
  return end;
}

size_t skip_spaces(std::string_view text, size_t begin) {
  while (begin < text.size() && is_whitespace(utf8_decode(text, begin))) begin += utf8_sequence_length(text, begin);
  return begin;
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word(utf8_decode(text, character_before(text, begin)))) return false;
  return end == text.size() || !is_word(utf8_decode(text, end));
}

}  // namespace

bool TokenTrie::insert(std::string_view text, int32_t id) {
  uint32_t node = 0;
  for (const char byte : text) {
    const auto next = static_cast<uint32_t>(nodes_.size());
    const auto [it, added] = nodes_[node].next.try_emplace(static_cast<unsigned char>(byte), next);
    node = it->second;
    if (added) nodes_.emplace_back();
  }
  if (node == 0 || nodes_[node].id != Piece::kNoId) return false;
  nodes_[node].id = id;
  return true;
}

std::optional<TokenTrie::Match> TokenTrie::longest_at(std::string_view text, size_t pos) const {
  std::optional<Match> best;
  uint32_t node = 0;
  for (size_t i = pos; i < text.size(); ++i) {
    const auto it = nodes_[node].next.find(static_cast<unsigned char>(text[i]));
    if (it == nodes_[node].next.end()) break;
    node = it->second;
    if (nodes_[node].id != Piece::kNoId) best = {nodes_[node].id, i + 1 - pos};
  }
  return best;
}

AddedTokens::AddedTokens(const std::vector<JsonObject>& json, const BpeModel& model, const Normalizers& normalizers) {
  RegexScratch scratch;
  int32_t next_id = model.num_tokens();
  for (const JsonObject& entry : json) {
    AddedToken token;
    token.content = entry.get<std::string>("content");
    token.single_word = entry.get_or<bool>("single_word", false);
    token.lstrip = entry.get_or<bool>("lstrip", false);
    token.rstrip = entry.get_or<bool>("rstrip", false);
    token.special = entry.get_or<bool>("special", false);
    token.normalized = entry.get_or<bool>("normalized", !token.special);
    const auto declared = static_cast<int32_t>(entry.non_negative_int("id", kMaxTokenId));
    if (token.content.empty()) continue;
    std::optional<int32_t> known = token_to_id(token.content);
    if (!known) known = model.token_to_id(token.content);
    const int32_t id = known ? *known : next_id++;
    if (id != declared) {
      // The reference takes its own id over the declared one and only warns; the embedding row would be a wrong one.
      entry.reject("id", fmt::format("{} ({})", id, known ? "its id in the vocabulary" : "the next free one"));
    }
    token.decoded = token.normalized ? normalize(token.content, normalizers, scratch) : token.content;
    ids_[token.content] = id;
    if (token.special) special_.insert(token.content);
    tokens_[id] = std::move(token);
  }
  for (const auto& [id, token] : tokens_) {
    if (!(token.normalized ? normalized_ : raw_).insert(token.decoded, id)) {
      fail(ErrorKind::kInput, json.front().where(),
           {"an added token normalizes to nothing or to the text of another", token.content, {}, {}});
    }
  }
}

std::optional<int32_t> AddedTokens::token_to_id(std::string_view content) const {
  const auto it = ids_.find(std::string(content));
  return it == ids_.end() ? std::nullopt : std::optional(it->second);
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto it = tokens_.find(id);
  return it == tokens_.end() ? nullptr : &it->second;
}

std::vector<Piece> AddedTokens::split_and_normalize(std::string_view text, const Normalizers& normalizers,
                                                    RegexScratch& scratch) const {
  Piece whole;
  whole.text = std::string(text);
  whole.at_start = true;
  whole.start_bytes = text.empty() ? 0 : utf8_sequence_length(text, 0);
  std::vector<Piece> raw;
  cut(whole, raw_, raw);
  std::vector<Piece> pieces;
  for (Piece& piece : raw) {
    if (piece.id != Piece::kNoId) {
      pieces.push_back(std::move(piece));
      continue;
    }
    for (const auto& normalizer : normalizers) normalizer->apply(piece, scratch);
    cut(piece, normalized_, pieces);
  }
  return pieces;
}

void AddedTokens::cut(const Piece& piece, const TokenTrie& trie, std::vector<Piece>& out) const {
  const std::string_view text = piece.text;
  const auto emit = [&](size_t begin, size_t end, int32_t id) {
    if (begin >= end) return;
    out.push_back(piece.slice(begin, end));
    out.back().id = id;
  };
  size_t covered = 0;
  for (size_t pos = 0; !trie.empty() && pos < text.size();) {
    const auto match = trie.longest_at(text, pos);
    if (!match) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_.at(match->id);
    size_t begin = pos;
    size_t end = pos + match->length;
    pos = end;
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    if (token.lstrip) begin = std::max(skip_spaces_back(text, begin), covered);
    if (token.rstrip) end = skip_spaces(text, end);
    emit(covered, begin, Piece::kNoId);
    emit(begin, end, match->id);
    covered = end;
  }
  emit(covered, text.size(), Piece::kNoId);
}

}  // namespace eps::tok
