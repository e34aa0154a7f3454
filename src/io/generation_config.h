// generation_config.json: what a model's authors suggest for sampling.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace eps {

// What the file leaves out keeps these values, under which nothing is cut from the distribution.
struct GenerationConfig {
  bool do_sample = false;
  double temperature = 1.0;  // 0 means greedy
  int64_t top_k = 0;         // 0 means off
  double top_p = 1.0;        // in (0, 1]; 1 means off
  std::optional<int64_t> max_new_tokens;
  std::vector<int> bos_token_ids;
  std::vector<int> eos_token_ids;  // empty when the file names none: config.json may
};

// Errors  kInput for settings that are not meaningful
GenerationConfig parse_generation_config(const JsonObject& object);

// A token id field, written as an integer, a list of integers, or null; empty when absent. config.json has them, too.
std::vector<int> read_token_ids(const JsonObject& object, std::string_view key);

}  // namespace eps
