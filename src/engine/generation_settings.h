// Merges the settings of a request with those of the model's generation_config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model_folder.h"
#include "epsmoe/engine.h"

namespace eps::engine {

struct GenerationSettings {
  SamplingOptions sampling;
  int64_t max_tokens = 0;
  std::vector<int32_t> eos_ids;
  std::vector<std::string> stop;   // texts that end the output
  std::vector<std::string> notes;  // for the user: settings of the file that are ignored
};

// Settings that the request does not contain come from the file. Values of the file that the request replaces, or that
// greedy sampling ignores, are not checked.
//
// Errors  kUsage naming the field of the request; kInput naming the file and the key: an invalid value, or an
//         unsupported setting that would change the text
GenerationSettings resolve_generation(const GenerateRequest& request, const ModelFolder& folder, int64_t prompt_len,
                                      int64_t max_model_len);

}  // namespace eps::engine
