#include "io/generation_config.h"

#include <algorithm>

#include "base/error.h"

namespace eps {

std::vector<int> read_token_ids(const JsonObject& object, std::string_view key) {
  const Json* value = object.find(key);
  if (value == nullptr) return {};
  const auto ids = value->is_array() ? object.get<std::vector<int>>(key) : std::vector<int>{object.get<int>(key)};
  if (std::any_of(ids.begin(), ids.end(), [](int id) { return id < 0; })) {
    fail(ErrorKind::kInput, object.where(),
         {"key \"" + object.path_of(key) + "\"", value->dump(), "token ids of at least 0", ""});
  }
  return ids;
}

GenerationConfig parse_generation_config(const JsonObject& object) {
  GenerationConfig config;
  config.do_sample = object.get_or<bool>("do_sample", config.do_sample);
  config.temperature = object.get_or<double>("temperature", config.temperature);
  if (config.temperature < 0) object.reject("temperature", "a number of at least 0");
  if (object.has("top_k")) config.top_k = object.non_negative_int("top_k");
  config.top_p = object.get_or<double>("top_p", config.top_p);
  if (!(config.top_p > 0 && config.top_p <= 1)) object.reject("top_p", "a number above 0 and at most 1");
  if (object.has("max_new_tokens")) config.max_new_tokens = object.positive_int("max_new_tokens");
  config.bos_token_ids = read_token_ids(object, "bos_token_id");
  config.eos_token_ids = read_token_ids(object, "eos_token_id");
  return config;
}

}  // namespace eps
