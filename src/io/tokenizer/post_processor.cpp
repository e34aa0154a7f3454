#include "io/tokenizer/post_processor.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace eps::io::tok {
namespace {

// Far more than real post-processors need, which put one to three ids around a text.
constexpr size_t kMaxIds = 1024;

}  // namespace

PostProcessor::PostProcessor(const JsonObject& json, int32_t num_ids) { add(json, num_ids); }

void PostProcessor::add(const JsonObject& json, int32_t num_ids) {
  const auto type = json.get<std::string>("type");
  if (type == "Sequence") {
    for (const JsonObject& part : json.children("processors")) add(part, num_ids);
  } else if (type == "TemplateProcessing") {
    add_template(json, num_ids);
  } else if (type != "ByteLevel") {
    json.reject("type", "a post-processor among TemplateProcessing, ByteLevel, Sequence");
  }
}

void PostProcessor::add_template(const JsonObject& json, int32_t num_ids) {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  bool seen_text = false;
  for (const JsonObject& piece : json.children("single")) {
    if (const auto sequence = piece.optional_child("Sequence")) {
      if (seen_text || sequence->get<std::string>("id") != "A") json.reject("single", "the sequence A just once");
      seen_text = true;
      continue;
    }
    const JsonObject token = json.child("special_tokens").child(piece.child("SpecialToken").get<std::string>("id"));
    for (const int64_t id : token.get<std::vector<int64_t>>("ids")) {
      if (id < 0 || id >= num_ids) token.reject("ids", "ids of the vocabulary");
      if (prefix_.size() + suffix_.size() + before.size() + after.size() >= kMaxIds) {
        json.reject("single", fmt::format("at most {} ids around a text", kMaxIds));
      }
      (seen_text ? after : before).push_back(static_cast<int32_t>(id));
    }
  }
  if (!seen_text) json.reject("single", "the sequence A just once");
  // A later processor wraps the result of the earlier ones.
  prefix_.insert(prefix_.begin(), before.begin(), before.end());
  suffix_.insert(suffix_.end(), after.begin(), after.end());
}

}  // namespace eps::io::tok
