// The "added_tokens" part of tokenizer.json: tokens that are cut out of the text before BPE.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/tokenizer/bpe.h"
#include "io/tokenizer/normalizer.h"
#include "io/tokenizer/piece.h"
#include "io/tokenizer/token_matcher.h"

namespace eps::io::tok {

struct AddedToken {
  std::string content;
  std::string decoded;       // input of the decoder: normalized if the token is, so that the decoder can undo it
  bool single_word = false;  // matches only between characters that are not part of a word
  bool lstrip = false;       // also covers the whitespace before it
  bool rstrip = false;
  bool normalized = true;  // the normalized token is searched for in the normalized text
  bool special = false;
};

class AddedTokens {
 public:
  // Errors  kInput if a token's id is not the expected one (the one in the model's vocabulary, otherwise the next free
  //         one), if two tokens normalize to the same text, or if their total length exceeds a generous limit
  AddedTokens(const std::vector<JsonObject>& json, const BpeModel& model, const Normalizers& normalizers);

  // Splits `text` at the tokens that are searched for unnormalized, normalizes the text between them, and splits that
  // at the other tokens. Pieces that are added tokens have an id and no text.
  //
  // Cost  O(text) besides the normalizers
  std::vector<Piece> split_and_normalize(std::string_view text, const Normalizers& normalizers,
                                         Workspace& workspace) const;

  std::optional<int32_t> token_to_id(std::string_view content) const;
  const AddedToken* find(int32_t id) const;
  bool is_special_text(std::string_view text) const { return special_.contains(text); }
  int32_t max_id() const { return tokens_.empty() ? -1 : tokens_.rbegin()->first; }

 private:
  void read(const std::vector<JsonObject>& json, const BpeModel& model, const Normalizers& normalizers);
  void cut(Piece piece, const TokenMatcher& matcher, std::vector<Piece>& out) const;

  std::map<int32_t, AddedToken> tokens_;
  std::map<std::string, int32_t, std::less<>> ids_;
  std::set<std::string, std::less<>> special_;
  TokenMatcher raw_;
  TokenMatcher normalized_;
};

}  // namespace eps::io::tok
