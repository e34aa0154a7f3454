// Converts text to token ids and back, using a model's tokenizer.json (byte pair encoding). The ids are the same as
// those of the Hugging Face tokenizers library.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace eps::io {

class JsonObject;

// Immutable: copies share one vocabulary, and any number of threads may use it at the same time.
//
// The settings "truncation" and "padding" in the file are for training and are ignored.
class Tokenizer {
 public:
  // Errors  kInput, naming the file and the field, for files that are invalid or use an unsupported feature
  static Tokenizer from_file(const std::string& path);
  static Tokenizer from_json(std::string_view text, const std::string& where);
  static Tokenizer from_object(const JsonObject& json);  // from the parsed content of a tokenizer.json

  // `add_special_tokens` adds the tokens that the post-processor puts around a text, such as a begin-of-text token.
  // Special tokens that are written out in the text are always converted to their ids.
  //
  // Stops once there are more than `max_ids` ids, so that a text that is too long for a context is detected before all
  // of it has been encoded. The result is then a prefix of the text's ids, longer than `max_ids`. `keep_going` (may be
  // empty) is called every few milliseconds; if it returns false, the result is a prefix as well.
  //
  // Cost    O(n log n) time and O(n) memory in the bytes of the text, for every text and tokenizer.json; the files in
  //         tokenizer/ explain why
  // Errors  kInput if `text` is not UTF-8 (with the offset of the first invalid byte), if a pattern of the tokenizer
  //         takes too many steps on it, or if normalization expands it too much (tokenizer/workspace.h)
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens, size_t max_ids = SIZE_MAX,
                              const std::function<bool()>& keep_going = {}) const;

  // Ids without a token are skipped. The result is always valid UTF-8: invalid bytes become U+FFFD.
  //
  // Cost    O(n) in the bytes of the tokens
  // Errors  kInput if decoding expands the text too much (tokenizer/workspace.h)
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  // One more than the largest id.
  int32_t vocab_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  // The token as written in the vocabulary, e.g. "Ġthe" or "▁the"; empty for ids without a token.
  std::string_view id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;

 private:
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::shared_ptr<const Impl> impl);

  std::shared_ptr<const Impl> impl_;  // shared by copies and by stream decoders
};

// Decodes ids one at a time. The pieces that push and flush return add up to the result of Tokenizer::decode for all
// ids, and every piece ends at a character boundary.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();

  // Returns the text that this id has made final, which is often empty. The text of byte tokens (<0x..>) is final only
  // after the last one of a run, because one invalid byte makes the whole run invalid.
  //
  // Errors  as for Tokenizer::decode
  std::string push(int32_t id);
  // Returns the text that was held back. The decoder is then ready for another text.
  std::string flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eps::io
