#include "io/generation_config.h"

#include <algorithm>

#include "base/error.h"

namespace eps::io {
namespace {

bool is_null_or_empty(const Json& v) { return v.is_null() || (v.is_structured() && v.empty()); }
bool is_at_most_one(const Json& v) { return v.is_number() && v.get<double>() <= 1; }
bool is_at_most_zero(const Json& v) { return v.is_number() && v.get<double>() <= 0; }
bool is_one(const Json& v) { return v.is_number() && v.get<double>() == 1; }
bool is_false(const Json& v) { return v.is_boolean() && !v.get<bool>(); }

struct UnsupportedKey {
  std::string_view key;
  std::string_view what;
  bool (*is_off)(const Json&);
  bool changes_text;
};

// The keys of transformers 5.24 that are not supported.
constexpr UnsupportedKey kUnsupported[] = {
    {"num_beams", "beam search", is_at_most_one, true},
    {"num_beam_groups", "diverse beam search", is_at_most_one, true},
    {"constraints", "constrained beam search", is_null_or_empty, true},
    {"force_words_ids", "constrained beam search", is_null_or_empty, true},
    {"penalty_alpha", "contrastive search", is_at_most_zero, true},
    {"dola_layers", "decoding by contrasting layers", is_null_or_empty, true},
    {"guidance_scale", "classifier-free guidance", is_one, true},
    {"token_healing", "token healing of the prompt", is_false, true},
    {"watermarking_config", "a watermark", is_null_or_empty, true},
    {"num_return_sequences", "several texts; one is generated", is_at_most_one, false},
    {"max_time", "a time limit", is_null_or_empty, false},
};

// A list of lists of token ids.
std::vector<std::vector<int32_t>> read_id_lists(const JsonObject& object, std::string_view key) {
  const Json& value = *object.find(key);
  if (!value.is_array()) object.reject(key, "a list of lists of token ids");
  std::vector<std::vector<int32_t>> out;
  for (const Json& list : value) {
    const bool is_list = list.is_array() && !list.empty() && std::ranges::all_of(list, [](const Json& id) {
                           return id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX;
                         });
    if (!is_list) object.reject(key, "a list of lists of token ids");
    out.push_back(list.get<std::vector<int32_t>>());
  }
  return out;
}

// [[[ids], bias], ...]: the form in JSON, which has no maps with lists as keys.
std::vector<SequenceBias> read_sequence_bias(const JsonObject& object, std::string_view key) {
  const std::string wanted = "a list of pairs of token ids and a bias, such as [[[5, 7], -2.0]]";
  const Json& value = *object.find(key);
  if (!value.is_array()) object.reject(key, wanted);
  std::vector<SequenceBias> out;
  for (const Json& pair : value) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_array() || !pair[1].is_number()) object.reject(key, wanted);
    for (const Json& id : pair[0]) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) object.reject(key, wanted);
    }
    out.push_back({pair[0].get<std::vector<int32_t>>(), pair[1].get<double>()});
  }
  return out;
}

LengthDecay read_length_decay(const JsonObject& object, std::string_view key) {
  const Json& value = *object.find(key);
  if (!value.is_array() || value.size() != 2 || !value[0].is_number_integer() || !value[1].is_number()) {
    object.reject(key, "a number of tokens and a factor, such as [100, 1.01]");
  }
  return {value[0].get<int64_t>(), value[1].get<double>()};
}

// transformers treats values outside (0, 1) as "off".
double open_unit_or(double value, double off) { return value > 0 && value < 1 ? value : off; }

// Calls `read` for keys that are present, and records errors instead of throwing them.
class Reader {
 public:
  Reader(const JsonObject& object, GenerationConfig& config) : object_(object), config_(config) {}

  template <typename F>
  void operator()(std::string_view key, const F& read) {
    if (!object_.has(key)) return;
    try {
      read(key);
    } catch (const Error& e) {
      config_.invalid.emplace(std::string(key), e);
    }
  }

  void number(std::string_view key, double& value) {
    (*this)(key, [&](std::string_view k) { value = object_.get<double>(k); });
  }
  // Values below 0 mean 0.
  void count(std::string_view key, int64_t& value) {
    (*this)(key, [&](std::string_view k) { value = std::max<int64_t>(0, object_.get<int64_t>(k)); });
  }
  void positive(std::string_view key, std::optional<int64_t>& value) {
    (*this)(key, [&](std::string_view k) { value = object_.positive_int(k); });
  }
  void tokens(std::string_view key, std::vector<int32_t>& ids) {
    (*this)(key, [&](std::string_view k) { ids = read_token_ids(object_, k); });
  }

 private:
  const JsonObject& object_;
  GenerationConfig& config_;
};

void read_cuts(const JsonObject& object, Reader& read, SamplingOptions& s) {
  read.number("temperature", s.temperature);
  read("top_k", [&](std::string_view key) { s.top_k = object.get<int64_t>(key); });
  read.number("top_p", s.top_p);
  read("top_h", [&](std::string_view key) { s.top_h = object.get<double>(key); });
  read.number("min_p", s.min_p);
  read("typical_p", [&](std::string_view key) { s.typical_p = std::min(1.0, object.get<double>(key)); });
  read("epsilon_cutoff", [&](std::string_view key) { s.epsilon_cutoff = open_unit_or(object.get<double>(key), 0); });
  read("eta_cutoff", [&](std::string_view key) { s.eta_cutoff = open_unit_or(object.get<double>(key), 0); });
}

void read_logit_changes(const JsonObject& object, Reader& read, SamplingOptions& s) {
  read("sequence_bias", [&](std::string_view key) { s.sequence_bias = read_sequence_bias(object, key); });
  read.number("encoder_repetition_penalty", s.encoder_repetition_penalty);
  read.number("repetition_penalty", s.repetition_penalty);
  read.number("frequency_penalty", s.frequency_penalty);
  read.number("presence_penalty", s.presence_penalty);
  read.count("no_repeat_ngram_size", s.no_repeat_ngram_size);
  read.count("encoder_no_repeat_ngram_size", s.encoder_no_repeat_ngram_size);
  read("bad_words_ids", [&](std::string_view key) { s.bad_words_ids = read_id_lists(object, key); });
  read.count("min_length", s.min_length);
  read.count("min_new_tokens", s.min_tokens);
  read("forced_bos_token_id", [&](std::string_view key) {
    const std::vector<int> ids = read_token_ids(object, key);
    if (ids.size() > 1) object.reject(key, "one token id");
    if (!ids.empty()) s.forced_bos_token_id = ids.front();
  });
  read.tokens("forced_eos_token_id", s.forced_eos_token_ids);
  read("exponential_decay_length_penalty",
       [&](std::string_view key) { s.exponential_decay_length_penalty = read_length_decay(object, key); });
  read.tokens("suppress_tokens", s.suppress_tokens);
  read.tokens("begin_suppress_tokens", s.begin_suppress_tokens);
}

}  // namespace

std::vector<int> read_token_ids(const JsonObject& object, std::string_view key) {
  const Json* value = object.find(key);
  if (value == nullptr) return {};
  auto ids = value->is_array() ? object.get<std::vector<int>>(key) : std::vector<int>{object.get<int>(key)};
  std::erase_if(ids, [](int id) { return id < 0; });
  return ids;
}

GenerationConfig parse_generation_config(const JsonObject& object) {
  GenerationConfig config;
  config.path = object.where();
  config.do_sample = object.get_or<bool>("do_sample", config.do_sample);
  config.bos_token_ids = read_token_ids(object, "bos_token_id");
  config.eos_token_ids = read_token_ids(object, "eos_token_id");
  Reader read(object, config);
  read_cuts(object, read, config.sampling);
  read_logit_changes(object, read, config.sampling);
  read.positive("max_new_tokens", config.max_new_tokens);
  read.positive("max_length", config.max_length);
  read("stop_strings", [&](std::string_view key) {
    const bool is_list = object.find(key)->is_array();
    config.stop_strings =
        is_list ? object.get<std::vector<std::string>>(key) : std::vector{object.get<std::string>(key)};
    if (std::ranges::any_of(config.stop_strings, &std::string::empty)) object.reject(key, "texts that are not empty");
  });
  for (const UnsupportedKey& u : kUnsupported) {
    const Json* value = object.find(u.key);
    if (value == nullptr || u.is_off(*value)) continue;
    config.unsupported.push_back({std::string(u.key), value->dump(), std::string(u.what), u.changes_text});
  }
  return config;
}

}  // namespace eps::io
