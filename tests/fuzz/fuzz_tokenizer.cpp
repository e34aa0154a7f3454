// The first byte chooses: any bytes as a tokenizer.json, or any bytes as text for a small tokenizer.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "io/tokenizer.h"

namespace {

// Byte fallback makes every text encodable; Metaspace, NFC, added tokens with all flags and a splitting regex take
// part.
constexpr std::string_view kHead = R"({"version":"1.0","added_tokens":[
  {"id":0,"content":"<s>","special":true,"normalized":false},
  {"id":266,"content":"ab","single_word":true,"normalized":true},
  {"id":267,"content":" b","lstrip":true,"rstrip":true,"normalized":false},
  {"id":268,"content":"  ","rstrip":true,"normalized":false}],
 "normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"String":" "},"content":"_"}]},
 "pre_tokenizer":{"type":"Sequence","pretokenizers":[
  {"type":"Split","pattern":{"Regex":"[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
   "behavior":"Isolated","invert":false}]},
 "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},"content":" "},
  {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":1}]},
 "model":{"type":"BPE","byte_fallback":true,"merges":["a b","b a","aa b","a a","_ a"],"vocab":{"<s>":0,)";
constexpr std::string_view kTail =
    R"("a":257,"b":258,"_":259,"ab":260,"ba":261,"aa":262,"aab":263,"_a":264,"1":265}}})";

eps::io::Tokenizer small_tokenizer() {
  std::string text(kHead);
  for (int byte = 0; byte < 256; ++byte) text += fmt::format("\"<0x{:02X}>\":{},", byte, byte + 1);
  text += kTail;
  return eps::io::Tokenizer::from_json(text, "small");
}

void check_stream(const eps::io::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  eps::io::StreamDecoder stream(tokenizer, false);
  std::string out;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    EPS_CHECK_EQ(eps::utf8_find_invalid(part), std::string_view::npos);
    out += part;
  }
  out += stream.flush();
  EPS_CHECK(out == tokenizer.decode(ids, false));
}

// Decoding loses what was normalized or stripped; what it gives has to be a text that can be encoded again, and after
// one round more nothing may change but the spaces that Strip takes at both ends.
void check_text(const eps::io::Tokenizer& tokenizer, std::string_view text) {
  const std::vector<int32_t> ids = tokenizer.encode(text, false);
  for (const int32_t id : ids) EPS_CHECK(id >= 0 && id < tokenizer.vocab_size());
  check_stream(tokenizer, ids);
  const std::string once = tokenizer.decode(ids, false);
  EPS_CHECK_EQ(eps::utf8_find_invalid(once), std::string_view::npos);
  const std::string framed = "x" + once + "x";  // keeps its spaces away from the ends
  const std::string twice = tokenizer.decode(tokenizer.encode(framed, false), false);
  EPS_CHECK_EQ(eps::utf8_find_invalid(twice), std::string_view::npos);
  EPS_CHECK(tokenizer.decode(tokenizer.encode(twice, false), false) == twice);
}

void expect_input_error(const eps::Error& error) {
  EPS_CHECK(error.kind() == eps::ErrorKind::kInput, "{}", error.what());
  EPS_CHECK_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] % 2 == 0) {
      static const eps::io::Tokenizer tokenizer = small_tokenizer();
      check_text(tokenizer, bytes);
    } else {
      const eps::io::Tokenizer tokenizer = eps::io::Tokenizer::from_json(bytes, "fuzz");
      const std::vector<int32_t> ids = tokenizer.encode("a b\n\u00e9<s>  abc 123", true);
      for (const int32_t id : ids) EPS_CHECK(id >= 0 && id < tokenizer.vocab_size());
      check_stream(tokenizer, ids);
    }
  } catch (const eps::Error& error) {
    expect_input_error(error);
  }
  return 0;
}
