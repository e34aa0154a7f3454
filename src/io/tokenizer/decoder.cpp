#include "io/tokenizer/decoder.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "io/tokenizer/byte_alphabet.h"

namespace eps::io::tok {
namespace {

constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";
constexpr int64_t kMaxStrip = 1 << 20;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The byte of a token such as <0x0A>, or -1.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int low = hex_digit(token[4]);
  if (token[3] == '+') return low;  // the reference's number parser accepts a sign
  const int high = hex_digit(token[3]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// The text of a run of byte tokens. As in the reference, one invalid byte makes the whole run invalid, and every byte
// is then replaced.
std::string decode_run(std::string_view bytes) {
  if (utf8_find_invalid(bytes) == std::string_view::npos) return std::string(bytes);
  std::string out;
  for (size_t i = 0; i < bytes.size(); ++i) out += kReplacementCharacter;
  return out;
}

}  // namespace

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    if (const size_t length = utf8_sequence_length(bytes, i); length != 0) {
      out.append(bytes, i, length);
      i += length;
      continue;
    }
    out += kReplacementCharacter;
    // One replacement character stands for the longest prefix of a well-formed sequence, as Unicode recommends.
    size_t bad = std::min<size_t>(3, bytes.size() - i);
    while (bad > 1 && utf8_incomplete_tail(bytes.substr(i, bad)) != bad) --bad;
    i += bad;
  }
  return out;
}

// Fuse joins all tokens into one, and so does ByteLevel, because a character may be spread over several tokens. The
// later stages therefore receive one token in parts and must produce the same result as for the whole token.
Decoder::Decoder(const JsonObject& json) : separator_("") {
  add_stages(json);
  bool fused = false;
  for (Stage& stage : stages_) {
    stage.fused = fused;
    fused = fused || stage.kind == Kind::kFuse || stage.kind == Kind::kByteLevel;
  }
}

void Decoder::add_stages(const JsonObject& json) {
  const auto type = json.get<std::string>("type");
  if (type == "Sequence") {
    for (const JsonObject& part : json.children("decoders")) add_stages(part);
    return;
  }
  require_stage_fits(stages_.size(), json.where());
  Stage stage;
  if (type == "ByteLevel") {
    stage.kind = Kind::kByteLevel;
  } else if (type == "Replace") {
    stage.kind = Kind::kReplace;
    stage.pattern = Pattern::from_json(json, "pattern");
    stage.content = json.get<std::string>("content");
  } else if (type == "ByteFallback") {
    stage.kind = Kind::kByteFallback;
  } else if (type == "Strip") {
    stage.kind = Kind::kStrip;
    stage.content = json.get<std::string>("content");
    if (stage.content.empty() || utf8_sequence_length(stage.content, 0) != stage.content.size()) {
      json.reject("content", "one character");
    }
    stage.start = static_cast<size_t>(json.non_negative_int("start", kMaxStrip));
    stage.stop = static_cast<size_t>(json.non_negative_int("stop", kMaxStrip));
  } else if (type == "Metaspace") {
    stage.kind = Kind::kMetaspace;
    stage.metaspace = Metaspace::from_json(json);
  } else if (type != "Fuse") {
    json.reject("type", "a decoder among ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence");
  }
  stages_.push_back(std::move(stage));
}

std::string Decoder::Stage::replace(std::string_view token, Workspace& workspace) const {
  std::string out;
  pattern->for_each_span(token, workspace.regex, [&](const Span& span) {
    const std::string_view part = span.is_match ? content : token.substr(span.begin, span.end - span.begin);
    workspace.budget.spend(part.size());
    out += part;
    return true;
  });
  return out;
}

// In the first token the marks are removed instead of becoming spaces, unless encoding never prepends one.
std::string Decoder::Stage::restore_spaces(std::string_view token, bool first) const {
  std::string out;
  for (size_t i = 0; i < token.size();) {
    if (token.substr(i).starts_with(metaspace.replacement)) {
      if (!first || metaspace.prepend == Metaspace::Prepend::kNever) out += ' ';
      i += metaspace.replacement.size();
    } else {
      out += token[i++];
    }
  }
  return out;
}

std::string Decoder::Stage::strip_whole(std::string_view token) const {
  for (size_t i = 0; i < start && token.starts_with(content); ++i) token.remove_prefix(content.size());
  for (size_t i = 0; i < stop && token.ends_with(content); ++i) token.remove_suffix(content.size());
  return std::string(token);
}

void Decoder::Run::push(std::string_view token, std::string& out) {
  workspace_.budget.earn_token();
  if (decoder_.stages_.empty()) {
    if (joined_any_) out += decoder_.separator_;
    joined_any_ = true;
    workspace_.budget.spend(token.size());
    out += token;
    return;
  }
  feed(0, token, out);
}

void Decoder::Run::finish(std::string& out) {
  for (size_t stage = 0; stage < states_.size(); ++stage) end(stage, out);
}

void Decoder::Run::feed(size_t index, std::string_view token, std::string& out) {
  if (index == decoder_.stages_.size()) {
    out += token;
    return;
  }
  workspace_.budget.spend(token.size());
  const Stage& stage = decoder_.stages_[index];
  State& state = states_[index];
  const bool first = !state.seen_any;
  state.seen_any = true;
  if (stage.collects()) {
    state.held += token;
    return;
  }
  switch (stage.kind) {
    case Kind::kByteLevel: {
      state.held += from_byte_alphabet(token).value_or(std::string(token));
      const size_t ready = state.held.size() - utf8_incomplete_tail(state.held);
      const std::string text = to_valid_utf8(std::string_view(state.held).substr(0, ready));
      state.held.erase(0, ready);
      if (!text.empty()) feed(index + 1, text, out);
      return;
    }
    case Kind::kReplace: return feed(index + 1, stage.replace(token, workspace_), out);
    case Kind::kByteFallback:
      if (const int byte = fallback_byte(token); byte >= 0) {
        state.held.push_back(static_cast<char>(byte));
      } else {
        if (!state.held.empty()) feed(index + 1, decode_run(state.held), out);
        state.held.clear();
        feed(index + 1, token, out);
      }
      return;
    case Kind::kFuse: return feed(index + 1, token, out);
    case Kind::kStrip: return stage.fused ? strip(index, token, out) : feed(index + 1, stage.strip_whole(token), out);
    case Kind::kMetaspace: return feed(index + 1, stage.restore_spaces(token, first || stage.fused), out);
  }
}

// Applies Strip to a token that arrives in parts: removes characters at the start, and holds back those that may turn
// out to be the end.
void Decoder::Run::strip(size_t index, std::string_view token, std::string& out) {
  const Stage& stage = decoder_.stages_[index];
  State& state = states_[index];
  while (state.stripping && !token.empty()) {
    if (state.stripped < stage.start && token.starts_with(stage.content)) {
      token.remove_prefix(stage.content.size());
      ++state.stripped;
    } else {
      state.stripping = false;
    }
  }
  // The text that is held back consists only of the stripped character, so only the new part needs to be searched.
  const size_t size = stage.content.size();
  std::string_view body = token;
  size_t trailing = 0;
  for (; trailing < stage.stop && body.ends_with(stage.content); ++trailing) body.remove_suffix(size);
  std::string ready;
  if (body.empty()) {
    const size_t held = state.held.size() / size;
    const size_t surplus = held + trailing - std::min(held + trailing, stage.stop);
    ready = state.held.substr(0, surplus * size);
    state.held.erase(0, surplus * size);
    state.held += token;
  } else {
    ready = std::exchange(state.held, std::string(token.substr(body.size())));
    ready += body;
  }
  if (!ready.empty()) feed(index + 1, ready, out);
}

void Decoder::Run::end(size_t index, std::string& out) {
  const Stage& stage = decoder_.stages_[index];
  const std::string held = std::move(states_[index].held);
  states_[index].held.clear();
  if (held.empty() || stage.kind == Kind::kStrip) return;  // what Strip has held back is the end, which it removes
  std::string text;
  switch (stage.kind) {
    case Kind::kByteLevel: text = to_valid_utf8(stage.fused ? from_byte_alphabet(held).value_or(held) : held); break;
    case Kind::kReplace: text = stage.replace(held, workspace_); break;
    case Kind::kByteFallback: {
      const int byte = stage.fused ? fallback_byte(held) : -1;
      text = !stage.fused ? decode_run(held) : byte < 0 ? held : decode_run(std::string(1, static_cast<char>(byte)));
      break;
    }
    default: return;
  }
  feed(index + 1, text, out);
}

}  // namespace eps::io::tok
