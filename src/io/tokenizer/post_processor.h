// The "post_processor" part of tokenizer.json: the ids that are put before and after those of a text.
#pragma once

#include <cstdint>
#include <vector>

#include "io/json.h"

namespace eps::io::tok {

// TemplateProcessing (its template for a single text), ByteLevel (which only moves offsets), and Sequence of these.
class PostProcessor {
 public:
  PostProcessor() = default;
  // Errors  kInput for other types, templates without exactly one sequence A, ids outside [0, num_ids), and for more
  //         ids in total than any model uses (a template can repeat a list of ids many times)
  PostProcessor(const JsonObject& json, int32_t num_ids);

  const std::vector<int32_t>& prefix() const { return prefix_; }
  const std::vector<int32_t>& suffix() const { return suffix_; }

 private:
  void add(const JsonObject& json, int32_t num_ids);
  void add_template(const JsonObject& json, int32_t num_ids);

  std::vector<int32_t> prefix_;
  std::vector<int32_t> suffix_;
};

}  // namespace eps::io::tok
