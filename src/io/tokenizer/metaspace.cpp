#include "io/tokenizer/metaspace.h"

#include "base/utf8.h"

namespace eps::io::tok {

Metaspace Metaspace::from_json(const JsonObject& json) {
  Metaspace result;
  result.replacement = json.get<std::string>("replacement");
  if (result.replacement.empty() || utf8_sequence_length(result.replacement, 0) != result.replacement.size()) {
    json.reject("replacement", "one character");
  }
  const bool add_prefix_space = json.get_or<bool>("add_prefix_space", true);
  const auto scheme = json.get_or<std::string>("prepend_scheme", add_prefix_space ? "always" : "never");
  if (scheme == "first") {
    result.prepend = Prepend::kFirst;
  } else if (scheme == "always") {
    result.prepend = Prepend::kAlways;
  } else if (scheme == "never") {
    result.prepend = Prepend::kNever;
  } else {
    json.reject("prepend_scheme", "first, always or never");
  }
  if (!add_prefix_space && result.prepend != Prepend::kNever) {
    json.reject("prepend_scheme", "never, because add_prefix_space is false");
  }
  result.split = json.get_or<bool>("split", true);
  return result;
}

}  // namespace eps::io::tok
