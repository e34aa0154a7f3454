#include "io/tokenizer/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "io/tokenizer/unicode.h"
#include "io/tokenizer/workspace.h"

namespace eps::io::tok {
namespace {

// Real vocabularies have a few thousand added tokens of a few bytes each. The automaton takes 24 bytes per byte.
constexpr size_t kMaxAddedBytes = size_t{4} << 20;

std::string normalize(std::string_view text, const Normalizers& normalizers, Workspace& workspace) {
  Piece piece;
  piece.text = std::string(text);
  for (const auto& normalizer : normalizers) normalizer->apply(piece, workspace);
  return piece.text;
}

// Stops at `floor`, which is the start of a character.
size_t skip_spaces_back(std::string_view text, size_t end, size_t floor) {
  while (end > floor) {
    const size_t before = utf8_character_before(text, end);
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
  if (begin > 0 && is_word(utf8_decode(text, utf8_character_before(text, begin)))) return false;
  return end == text.size() || !is_word(utf8_decode(text, end));
}

}  // namespace

AddedTokens::AddedTokens(const std::vector<JsonObject>& json, const BpeModel& model, const Normalizers& normalizers) {
  read(json, model, normalizers);
  std::set<std::string_view> seen[2];
  std::vector<TokenMatcher::Pattern> patterns[2];
  size_t bytes = 0;
  for (const auto& [id, token] : tokens_) {
    if (token.decoded.empty() || !seen[token.normalized ? 1 : 0].insert(token.decoded).second) {
      fail(ErrorKind::kInput, json.front().where(),
           {"an added token normalizes to nothing or to the same text as another one", token.content, {}, {}});
    }
    patterns[token.normalized ? 1 : 0].push_back({token.decoded, id});
    bytes += token.decoded.size();
    if (bytes > kMaxAddedBytes) {
      fail(ErrorKind::kInput, json.front().where(),
           {"the added tokens are too long", {}, fmt::format("at most {} bytes in all", kMaxAddedBytes), {}});
    }
  }
  raw_ = TokenMatcher(std::move(patterns[0]));
  normalized_ = TokenMatcher(std::move(patterns[1]));
}

void AddedTokens::read(const std::vector<JsonObject>& json, const BpeModel& model, const Normalizers& normalizers) {
  if (json.empty()) return;
  size_t bytes = 0;
  for (const JsonObject& entry : json) bytes += entry.get<std::string>("content").size();
  Workspace workspace(Budget::for_text(bytes, json.front().where()));
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
      // In this case, the reference only prints a warning and uses its own id instead of the declared one, which would
      // select a wrong embedding.
      entry.reject("id", fmt::format("{} ({})", id, known ? "its id in the vocabulary" : "the next free one"));
    }
    token.decoded = token.normalized ? normalize(token.content, normalizers, workspace) : token.content;
    ids_[token.content] = id;
    if (token.special) special_.insert(token.content);
    tokens_[id] = std::move(token);
  }
}

std::optional<int32_t> AddedTokens::token_to_id(std::string_view content) const {
  const auto it = ids_.find(content);
  return it == ids_.end() ? std::nullopt : std::optional(it->second);
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto it = tokens_.find(id);
  return it == tokens_.end() ? nullptr : &it->second;
}

std::vector<Piece> AddedTokens::split_and_normalize(std::string_view text, const Normalizers& normalizers,
                                                    Workspace& workspace) const {
  Piece whole;
  whole.text = std::string(text);
  whole.at_start = true;
  whole.start_bytes = text.empty() ? 0 : utf8_sequence_length(text, 0);
  std::vector<Piece> raw;
  cut(std::move(whole), raw_, raw);
  std::vector<Piece> pieces;
  for (Piece& piece : raw) {
    if (piece.id != Piece::kNoId) {
      pieces.push_back(std::move(piece));
      continue;
    }
    for (const auto& normalizer : normalizers) normalizer->apply(piece, workspace);
    cut(std::move(piece), normalized_, pieces);
  }
  return pieces;
}

// As in the reference, the search continues immediately after a match, even if the match also covers the whitespace
// that follows (rstrip), and a single-word token that does not stand alone hides tokens that begin within it.
//
// Whitespace is scanned backward no further than to the end of the previous match, and forward only once per run. Even
// a text in which every character is a match that strips whitespace therefore takes linear time.
void AddedTokens::cut(Piece piece, const TokenMatcher& matcher, std::vector<Piece>& out) const {
  if (matcher.empty()) {
    if (!piece.text.empty()) out.push_back(std::move(piece));
    return;
  }
  const std::string_view text = piece.text;
  const std::vector<TokenMatcher::Match> matches = matcher.longest_at_each(text);
  size_t covered = 0;
  size_t pos = 0;
  size_t spaces_begin = 0;  // the last run of whitespace that was scanned
  size_t spaces_end = 0;
  for (auto match = matches.rbegin(); match != matches.rend(); ++match) {
    if (match->begin < pos) continue;
    const AddedToken& token = tokens_.at(match->id);
    size_t begin = match->begin;
    size_t end = begin + match->length;
    pos = end;
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    if (token.lstrip) begin = std::max(skip_spaces_back(text, begin, covered), covered);
    if (token.rstrip) {
      if (end < spaces_begin || end >= spaces_end) {
        spaces_begin = end;
        spaces_end = skip_spaces(text, end);
      }
      end = spaces_end;
    }
    if (covered < begin) out.emplace_back(piece.part().slice(covered, begin));
    if (begin < end) {
      out.emplace_back();
      out.back().id = match->id;
    }
    covered = end;
  }
  if (covered < text.size()) out.emplace_back(piece.part().slice(covered, text.size()));
}

}  // namespace eps::io::tok
