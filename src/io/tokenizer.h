// Text to token ids and back, from a model's tokenizer.json (byte pair encoding), with the ids that the Hugging Face
// tokenizers library gives.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace eps {

class JsonObject;

// Immutable: copies share one vocabulary, and any number of threads may use it at once.
//
// "truncation" and "padding" of the file are settings of a training run and are ignored.
class Tokenizer {
 public:
  // Errors  kInput for files that are not valid, or that use a part this program does not have: file and field named
  static Tokenizer from_file(const std::string& path);
  static Tokenizer from_json(std::string_view text, const std::string& where);
  static Tokenizer from_object(const JsonObject& json);  // the content of a tokenizer.json, already read

  // `add_special_tokens`: with what the post-processor puts around a text, such as a token for its beginning. Special
  // tokens that are written out in the text become their ids in any case.
  //
  // Stops once there are more than `max_ids`, so that a text that cannot fit a context is known to be too long before
  // all of it has been encoded: the result is then some beginning of the text's ids, with more than `max_ids` of them.
  // `keep_going`, where there is one, is asked every few milliseconds; after a no, too, the result is a beginning.
  //
  // Cost    O(n log n) time and O(n) memory in the bytes of the text, whatever the text and the tokenizer.json are; the
  //         files in tokenizer/ say why
  // Errors  kInput when `text` is not UTF-8 (with the offset of the first bad byte), when a pattern of the tokenizer
  //         takes too many steps on it, or when more text is made of it than is sane (tokenizer/workspace.h)
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens, size_t max_ids = SIZE_MAX,
                              const std::function<bool()>& keep_going = {}) const;

  // Ids without a token are passed over. Always valid UTF-8: what is not becomes U+FFFD.
  //
  // Cost    O(n) in the bytes of the tokens
  // Errors  kInput when more text is made of the tokens than is sane
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  // One more than the largest id.
  int32_t vocab_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  // As the vocabulary writes it, e.g. "Ġthe" or "▁the"; empty for ids without a token.
  std::string_view id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;

 private:
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::shared_ptr<const Impl> impl);

  std::shared_ptr<const Impl> impl_;  // shared by copies and by stream decoders
};

// Decodes ids as they come: the pieces that push and flush return add up to what Tokenizer::decode gives for all of
// them, and none ends within a character.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();

  // The text that is certain now and was not before; often empty. Text spelled in byte tokens (<0x..>) is certain only
  // once the run of them ends, since one bad byte spoils all of the run.
  //
  // Errors  as Tokenizer::decode
  std::string push(int32_t id);
  // What was held back. The decoder is then ready for another text.
  std::string flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eps
