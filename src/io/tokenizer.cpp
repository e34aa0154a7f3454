#include "io/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "io/json.h"
#include "io/tokenizer/added_tokens.h"
#include "io/tokenizer/bpe.h"
#include "io/tokenizer/decoder.h"
#include "io/tokenizer/normalizer.h"
#include "io/tokenizer/post_processor.h"
#include "io/tokenizer/pre_tokenizer.h"

namespace eps::io {

struct Tokenizer::Impl {
  explicit Impl(const JsonObject& json);

  void encode(std::string_view text, size_t max_ids, const std::function<bool()>& keep_going,
              std::vector<int32_t>& ids) const;
  // The token that `id` is decoded as; nothing if there is none, or if it is special and special tokens are skipped.
  std::optional<std::string_view> decodable(int32_t id, bool skip_special_tokens) const;

  tok::BpeModel model;
  tok::Normalizers normalizers;
  tok::AddedTokens added;
  tok::PreTokenizers pre_tokenizers;
  tok::PostProcessor post_processor;
  tok::Decoder decoder;
};

namespace {

tok::Normalizers read_normalizers(const JsonObject& json) {
  tok::Normalizers normalizers;
  if (const auto part = json.optional_child("normalizer")) append_normalizers(*part, normalizers);
  return normalizers;
}

std::vector<JsonObject> read_added(const JsonObject& json) {
  return json.has("added_tokens") ? json.children("added_tokens") : std::vector<JsonObject>{};
}

}  // namespace

Tokenizer::Impl::Impl(const JsonObject& json)
    : model(json.child("model")), normalizers(read_normalizers(json)), added(read_added(json), model, normalizers) {
  if (json.get_or<std::string>("version", "1.0") != "1.0") json.reject("version", "1.0");
  if (const auto part = json.optional_child("pre_tokenizer")) append_pre_tokenizers(*part, pre_tokenizers);
  const int32_t num_ids = std::max(model.max_id(), added.max_id()) + 1;
  if (const auto part = json.optional_child("post_processor")) post_processor = tok::PostProcessor(*part, num_ids);
  if (const auto part = json.optional_child("decoder")) decoder = tok::Decoder(*part);
}

namespace {

// Passes a text through the pre-tokenizers to BPE. Each part goes through all of them before the next part.
class PartEncoder {
 public:
  PartEncoder(const tok::PreTokenizers& pre_tokenizers, const tok::BpeModel& model, size_t max_ids,
              const std::function<bool()>& keep_going, tok::Workspace& workspace, std::vector<int32_t>& ids)
      : pre_tokenizers_(pre_tokenizers),
        model_(model),
        max_ids_(max_ids),
        keep_going_(keep_going),
        workspace_(workspace),
        ids_(ids) {}

  // Returns false once there are more ids than requested, or if the caller has stopped the encoding. The recursion
  // depth is at most tok::kMaxStages.
  bool encode(const tok::Part& part, size_t stage = 0) {
    if (stage < pre_tokenizers_.size()) {
      return pre_tokenizers_[stage]->split(
          part, workspace_, [this, stage](const tok::Part& smaller) { return encode(smaller, stage + 1); });
    }
    model_.encode(part.text, max_ids_, scratch_, ids_);
    if (keep_going_ && ++num_parts_ % kPartsPerQuestion == 0 && !keep_going_()) return false;
    return ids_.size() <= max_ids_;
  }

 private:
  static constexpr size_t kPartsPerQuestion = 4096;

  const tok::PreTokenizers& pre_tokenizers_;
  const tok::BpeModel& model_;
  size_t max_ids_;
  const std::function<bool()>& keep_going_;
  size_t num_parts_ = 0;
  tok::Workspace& workspace_;
  std::vector<int32_t>& ids_;
  tok::BpeModel::Scratch scratch_;
};

}  // namespace

void Tokenizer::Impl::encode(std::string_view text, size_t max_ids, const std::function<bool()>& keep_going,
                             std::vector<int32_t>& ids) const {
  tok::Workspace workspace(tok::Budget::for_text(text.size(), "text to encode"));
  PartEncoder encoder(pre_tokenizers, model, max_ids, keep_going, workspace, ids);
  for (const tok::Piece& piece : added.split_and_normalize(text, normalizers, workspace)) {
    if (piece.id != tok::Piece::kNoId) {
      ids.push_back(piece.id);
    } else if (!encoder.encode(piece.part())) {
      return;
    }
    if (ids.size() > max_ids) return;
  }
}

std::optional<std::string_view> Tokenizer::Impl::decodable(int32_t id, bool skip_special_tokens) const {
  const tok::AddedToken* token = added.find(id);
  const std::optional<std::string_view> text =
      token != nullptr ? std::optional<std::string_view>(token->decoded) : model.id_to_token(id);
  if (text && skip_special_tokens && added.is_special_text(*text)) return std::nullopt;
  return text;
}

Tokenizer::Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Tokenizer Tokenizer::from_file(const std::string& path) {
  const Json json = read_json_file(path);
  return from_object(JsonObject(json, path));
}

Tokenizer Tokenizer::from_json(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  return from_object(JsonObject(json, where));
}

Tokenizer Tokenizer::from_object(const JsonObject& json) { return Tokenizer(std::make_shared<const Impl>(json)); }

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens, size_t max_ids,
                                       const std::function<bool()>& keep_going) const {
  if (const size_t bad = utf8_find_invalid(text); bad != std::string_view::npos) {
    fail(ErrorKind::kInput, "text to encode",
         {fmt::format("not valid UTF-8 at byte {}", bad),
          fmt::format("the byte 0x{:02x}", static_cast<unsigned char>(text[bad])), "UTF-8",
          "converting the text, e.g. with iconv"});
  }
  std::vector<int32_t> ids;
  if (add_special_tokens) ids = impl_->post_processor.prefix();
  impl_->encode(text, max_ids, keep_going, ids);
  if (add_special_tokens) {
    const std::vector<int32_t>& suffix = impl_->post_processor.suffix();
    ids.insert(ids.end(), suffix.begin(), suffix.end());
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string out;
  tok::Decoder::Run run(impl_->decoder);
  for (const int32_t id : ids) {
    if (const auto token = impl_->decodable(id, skip_special_tokens)) run.push(*token, out);
  }
  run.finish(out);
  return out;
}

int32_t Tokenizer::vocab_size() const { return std::max(impl_->model.max_id(), impl_->added.max_id()) + 1; }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto id = impl_->added.token_to_id(token);
  return id ? id : impl_->model.token_to_id(token);
}

std::string_view Tokenizer::id_to_token(int32_t id) const {
  const tok::AddedToken* token = impl_->added.find(id);
  return token != nullptr ? std::string_view(token->content) : impl_->model.id_to_token(id).value_or("");
}

bool Tokenizer::is_special(int32_t id) const {
  const tok::AddedToken* token = impl_->added.find(id);
  return token != nullptr && token->special;
}

struct StreamDecoder::Impl {
  Impl(std::shared_ptr<const Tokenizer::Impl> tokenizer_in, bool skip)
      : tokenizer(std::move(tokenizer_in)), skip_special(skip), run(tokenizer->decoder) {}

  std::shared_ptr<const Tokenizer::Impl> tokenizer;
  bool skip_special;
  tok::Decoder::Run run;
};

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : impl_(std::make_unique<Impl>(tokenizer.impl_, skip_special_tokens)) {}
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(int32_t id) {
  std::string out;
  if (const auto token = impl_->tokenizer->decodable(id, impl_->skip_special)) impl_->run.push(*token, out);
  return out;
}

std::string StreamDecoder::flush() {
  std::string out;
  impl_->run.finish(out);
  impl_ = std::make_unique<Impl>(impl_->tokenizer, impl_->skip_special);
  return out;
}

}  // namespace eps::io
