// generation_config.json: what a model's authors suggest for sampling.
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

namespace eps {

// A setting that asks for something generation here does not do.
struct UnsupportedSetting {
  std::string key;
  std::string value;  // as JSON
  std::string what;   // it asks for
  // Whether a text made without it is another one than the authors meant; otherwise it merely lacks something beside
  // the text.
  bool changes_text = false;
};

// What the file leaves out keeps these values, under which nothing is cut from the distribution.
struct GenerationConfig {
  std::string path;  // of the file; empty where there is none
  bool do_sample = false;
  SamplingOptions sampling;  // ranges are checked when it is used: a request may replace a value
  std::optional<int64_t> max_new_tokens;
  std::optional<int64_t> max_length;  // prompt and output
  std::vector<std::string> stop_strings;
  std::vector<int> bos_token_ids;
  std::vector<int> eos_token_ids;  // empty when the file names none: config.json may
  // By key, errors of values that have the wrong type, for whoever uses them. The field has its default then.
  std::map<std::string, Error, std::less<>> invalid;
  std::vector<UnsupportedSetting> unsupported;
};

// Errors  kInput for a file whose do_sample or token ids mean nothing
GenerationConfig parse_generation_config(const JsonObject& object);

// A token id field, written as an integer, a list of integers, or null; empty when absent. config.json has them, too.
// A negative id is how some files write "none", and is left out.
std::vector<int> read_token_ids(const JsonObject& object, std::string_view key);

}  // namespace eps
