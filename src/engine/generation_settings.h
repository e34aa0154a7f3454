// What a request and the model's generation_config.json come to together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model_folder.h"
#include "epsmoe/engine.h"

namespace eps {

struct GenerationSettings {
  SamplingOptions sampling;
  int64_t max_tokens = 0;
  std::vector<int32_t> eos_ids;
  std::vector<std::string> stop;   // texts that end the output
  std::vector<std::string> notes;  // for the user: what the file asks for and is not done
};

// What the request leaves open comes from the file. Values of the file that the request replaces, or that greedy
// sampling does not look at, are not judged.
//
// Errors  kUsage naming the request's field; kInput naming the file and the key: a value that means nothing, or a
//         setting without which the text would be another one
GenerationSettings resolve_generation(const GenerateRequest& request, const ModelFolder& folder, int64_t prompt_len,
                                      int64_t max_model_len);

}  // namespace eps
