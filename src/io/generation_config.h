// generation_config.json: the sampling settings that a model's authors recommend.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "epsmoe/error.h"
#include "epsmoe/sampling.h"
#include "io/json.h"

namespace eps::io {

// A setting for a feature that is not supported.
struct UnsupportedSetting {
  std::string key;
  std::string value;  // as JSON
  std::string what;   // the feature
  // Whether ignoring it changes the generated text. Otherwise, only something besides the text is missing.
  bool changes_text = false;
};

// Settings that are not in the file keep these defaults, which do not change the distribution.
struct GenerationConfig {
  std::string path;  // of the file; empty if there is none
  bool do_sample = false;
  SamplingOptions sampling;  // ranges are checked on use, because a request may override a value
  std::optional<int64_t> max_new_tokens;
  std::optional<int64_t> max_length;  // prompt and output
  std::vector<std::string> stop_strings;
  std::vector<int> bos_token_ids;
  std::vector<int> eos_token_ids;  // empty if the file has none; they may be in config.json
  // Errors of values with the wrong type, by key. Such fields have their defaults, and the errors are thrown on use.
  std::map<std::string, Error, std::less<>> invalid;
  std::vector<UnsupportedSetting> unsupported;
};

// Errors  kInput for a file with an invalid do_sample or invalid token ids
GenerationConfig parse_generation_config(const JsonObject& object);

// A token id field, written as an integer, a list of integers, or null; empty when absent. config.json also has such
// fields. Negative ids, which some files use for "none", are left out.
std::vector<int> read_token_ids(const JsonObject& object, std::string_view key);

}  // namespace eps::io
