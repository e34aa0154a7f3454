// The "added_tokens" part of tokenizer.json: tokens that are cut out of the text before BPE sees it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "io/json.h"
#include "io/tokenizer/bpe.h"
#include "io/tokenizer/normalizer.h"
#include "io/tokenizer/piece.h"

namespace eps::tok {

struct AddedToken {
  std::string content;
  std::string decoded;       // what decoding sees: normalized when the token is, so that the decoder can undo it
  bool single_word = false;  // only between characters that are not part of a word
  bool lstrip = false;       // takes the whitespace before it along
  bool rstrip = false;
  bool normalized = true;  // is looked for, itself normalized, in the normalized text
  bool special = false;
};

// Texts with an id each, to be found in another text: at each position the longest.
class TokenTrie {
 public:
  struct Match {
    int32_t id;
    size_t length;
  };

  bool empty() const { return nodes_.size() == 1; }
  // False when the text is empty or there already.
  bool insert(std::string_view text, int32_t id);
  std::optional<Match> longest_at(std::string_view text, size_t pos) const;

 private:
  struct Node {
    int32_t id = Piece::kNoId;
    std::map<unsigned char, uint32_t> next;
  };
  std::vector<Node> nodes_{1};
};

class AddedTokens {
 public:
  // Errors  kInput when a token's id is not the one it gets (that of the model's vocabulary, else the next free one),
  //         or when two tokens normalize to the same text
  AddedTokens(const std::vector<JsonObject>& json, const BpeModel& model, const Normalizers& normalizers);

  // Cuts `text` at the tokens that are looked for as they are, normalizes what lies between, cuts that at the others.
  std::vector<Piece> split_and_normalize(std::string_view text, const Normalizers& normalizers,
                                         RegexScratch& scratch) const;

  std::optional<int32_t> token_to_id(std::string_view content) const;
  const AddedToken* find(int32_t id) const;
  bool is_special_text(std::string_view text) const { return special_.contains(std::string(text)); }
  int32_t max_id() const { return tokens_.empty() ? -1 : tokens_.rbegin()->first; }

 private:
  void cut(const Piece& piece, const TokenTrie& trie, std::vector<Piece>& out) const;

  std::map<int32_t, AddedToken> tokens_;
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_set<std::string> special_;
  TokenTrie raw_;
  TokenTrie normalized_;
};

}  // namespace eps::tok
