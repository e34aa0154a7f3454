// The options that the Metaspace pre-tokenizer and decoder share.
#pragma once

#include <string>

#include "io/json.h"

namespace eps::io::tok {

struct Metaspace {
  enum class Prepend { kFirst, kAlways, kNever };

  std::string replacement;  // one character, nearly always U+2581
  Prepend prepend = Prepend::kAlways;
  bool split = true;

  // Reads "prepend_scheme", or "add_prefix_space" in files that are older than it.
  //
  // Errors  kInput when they contradict each other, or a field is missing or wrong
  static Metaspace from_json(const JsonObject& json);
};

}  // namespace eps::io::tok
