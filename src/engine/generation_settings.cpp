#include "engine/generation_settings.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "engine/sampler.h"

namespace eps::engine {
namespace {

// The defaults of vLLM (16) and transformers (20) are too short to judge a model by.
constexpr int64_t kDefaultMaxTokens = 256;

// Keys that have an effect only on random sampling.
const std::set<std::string_view>& cut_keys() {
  static const std::set<std::string_view> keys = {"temperature", "top_k",     "top_p",          "top_h",
                                                  "min_p",       "typical_p", "epsilon_cutoff", "eta_cutoff"};
  return keys;
}

// The key in the file for a field of SamplingOptions.
std::string_view key_of(std::string_view field) {
  if (field == "min_tokens") return "min_new_tokens";
  if (field == "forced_eos_token_ids") return "forced_eos_token_id";
  return field;
}

void remove_cuts(SamplingOptions& s) {
  const SamplingOptions off;
  s.temperature = 0.0;
  s.top_k = off.top_k;
  s.top_p = off.top_p;
  s.top_h = off.top_h;
  s.min_p = off.min_p;
  s.typical_p = off.typical_p;
  s.epsilon_cutoff = off.epsilon_cutoff;
  s.eta_cutoff = off.eta_cutoff;
}

class Resolution {
 public:
  Resolution(const GenerateRequest& request, const io::GenerationConfig& file) : request_(request), file_(file) {}

  // The settings of the file, overridden by those of the request.
  SamplingOptions merge() {
    SamplingOptions s = file_.sampling;
    s.seed = request_.seed;
    replace("top_k", request_.top_k, s.top_k);
    replace("top_p", request_.top_p, s.top_p);
    replace("min_p", request_.min_p, s.min_p);
    replace("repetition_penalty", request_.repetition_penalty, s.repetition_penalty);
    replace("frequency_penalty", request_.frequency_penalty, s.frequency_penalty);
    replace("presence_penalty", request_.presence_penalty, s.presence_penalty);
    replace("no_repeat_ngram_size", request_.no_repeat_ngram_size, s.no_repeat_ngram_size);
    replace("bad_words_ids", request_.bad_words_ids, s.bad_words_ids);
    replace("suppress_tokens", request_.suppress_tokens, s.suppress_tokens);
    replace("begin_suppress_tokens", request_.begin_suppress_tokens, s.begin_suppress_tokens);
    replace("min_new_tokens", request_.min_tokens, s.min_tokens);
    if (request_.min_tokens) {
      s.min_length = 0;
      replaced_.insert("min_length");
    }
    replace("temperature", request_.temperature, s.temperature);
    const bool is_greedy = request_.temperature ? *request_.temperature == 0.0 : !file_.do_sample;
    if (is_greedy) {
      check_request(s);
      remove_cuts(s);
      replaced_.insert(cut_keys().begin(), cut_keys().end());
    }
    return s;
  }

  void mark_replaced(std::string_view key) { replaced_.insert(key); }

  // Checks only the settings that are used, so that a request can replace an invalid one of the file.
  void check(const SamplingOptions& s, int64_t vocab_size) const {
    for (const auto& [key, error] : file_.invalid) {
      if (!replaced_.contains(key)) throw error;
    }
    try {
      check_sampling(s, vocab_size);
    } catch (const Error& e) {
      const std::string_view key = key_of(e.where());
      if (file_.path.empty() || replaced_.contains(key)) throw;
      throw Error(ErrorKind::kInput, file_.path, fmt::format("key \"{}\": {}", key, e.message()));
    }
  }

 private:
  template <typename T>
  void replace(std::string_view key, const std::optional<T>& requested, T& value) {
    if (!requested) return;
    value = *requested;
    replaced_.insert(key);
  }

  // Values of the request are checked even if greedy sampling ignores them: the user has just written them.
  void check_request(const SamplingOptions& merged) const {
    SamplingOptions requested;
    if (request_.temperature) requested.temperature = merged.temperature;
    if (request_.top_k) requested.top_k = merged.top_k;
    if (request_.top_p) requested.top_p = merged.top_p;
    if (request_.min_p) requested.min_p = merged.min_p;
    check_sampling(requested, 1);
  }

  const GenerateRequest& request_;
  const io::GenerationConfig& file_;
  std::set<std::string_view> replaced_;
};

void refuse_unsupported(const io::GenerationConfig& file, std::vector<std::string>& notes) {
  for (const io::UnsupportedSetting& u : file.unsupported) {
    if (u.changes_text) {
      fail(ErrorKind::kInput, file.path,
           {.what = fmt::format("key \"{}\" requires {}, which is not supported", u.key, u.what),
            .got = u.value,
            .wanted = "",
            .hint = "`use_generation_config`, to ignore the settings of this file"});
    }
    notes.push_back(fmt::format("{}: key \"{}\" requests {} (ignored)", file.path, u.key, u.what));
  }
}

int64_t resolve_max_tokens(const GenerateRequest& request, const io::GenerationConfig& file, int64_t prompt_len,
                           int64_t max_model_len) {
  int64_t most = kDefaultMaxTokens;
  if (request.max_tokens != 0) {
    most = request.max_tokens;
  } else if (file.max_new_tokens) {
    most = *file.max_new_tokens;
  } else if (file.max_length) {
    most = *file.max_length - prompt_len;
    if (most < 1) {
      fail(ErrorKind::kInput, file.path,
           {.what = "key \"max_length\" leaves no room for output after the prompt",
            .got = fmt::format("{}, and a prompt of {} tokens", *file.max_length, prompt_len),
            .wanted = "",
            .hint = "`max_tokens`, which overrides it"});
    }
  }
  return std::min(most, max_model_len - prompt_len);
}

// transformers warns of such lengths, too, and ends the text at the maximum.
void note_lengths(const GenerateRequest& request, const io::GenerationConfig& file, int64_t prompt_len,
                  GenerationSettings& out) {
  const auto note = [&](std::string_view key, int64_t least, int64_t most) {
    if (least <= most) return;
    out.notes.push_back(
        fmt::format("{}: key \"{}\" is {}, but the text ends after {} tokens", file.path, key, least, most));
  };
  if (!request.min_tokens) note("min_new_tokens", out.sampling.min_tokens, out.max_tokens);
  note("min_length", out.sampling.min_length, prompt_len + out.max_tokens);
}

// An id that is not in the vocabulary never occurs, so it ends no text.
void note_missing_ends(const ModelFolder& folder, const io::GenerationConfig& file, GenerationSettings& out) {
  const int64_t vocab = folder.spec.vocab_size;
  for (const int32_t id : out.eos_ids) {
    if (id >= 0 && id < vocab) continue;
    const std::string path = !file.eos_token_ids.empty() ? file.path
                             : folder.checkpoint         ? folder.checkpoint->config_path()
                                                         : "config.json";
    out.notes.push_back(
        fmt::format("{}: eos_token_id {} is not in the vocabulary of {} tokens, so it ends no text", path, id, vocab));
  }
}

}  // namespace

GenerationSettings resolve_generation(const GenerateRequest& request, const ModelFolder& folder, int64_t prompt_len,
                                      int64_t max_model_len) {
  if (request.max_tokens < 0) {
    fail(ErrorKind::kUsage, "max_tokens",
         {.what = "out of range", .got = std::to_string(request.max_tokens), .wanted = "1 or more", .hint = ""});
  }
  if (request.max_tokens > 0 && request.min_tokens && *request.min_tokens > request.max_tokens) {
    fail(ErrorKind::kUsage, "min_tokens",
         {.what = "more than `max_tokens`",
          .got = std::to_string(*request.min_tokens),
          .wanted = fmt::format("at most {}", request.max_tokens),
          .hint = ""});
  }
  const io::GenerationConfig none;
  const io::GenerationConfig& file = request.use_generation_config ? folder.generation : none;
  GenerationSettings out;
  refuse_unsupported(file, out.notes);
  Resolution resolution(request, file);
  out.sampling = resolution.merge();
  if (request.max_tokens != 0) {
    resolution.mark_replaced("max_new_tokens");
    resolution.mark_replaced("max_length");
  }
  if (request.stop) resolution.mark_replaced("stop_strings");
  resolution.check(out.sampling, folder.spec.vocab_size);
  out.max_tokens = resolve_max_tokens(request, file, prompt_len, max_model_len);
  const std::vector<int>& eos = file.eos_token_ids.empty() ? folder.spec.eos_token_ids : file.eos_token_ids;
  out.eos_ids.assign(eos.begin(), eos.end());
  note_lengths(request, file, prompt_len, out);
  note_missing_ends(folder, file, out);
  out.stop = request.stop.value_or(file.stop_strings);
  if (std::ranges::any_of(out.stop, &std::string::empty)) {
    fail(ErrorKind::kUsage, "stop",
         {.what = "an empty text would stop every output at once", .got = "", .wanted = "", .hint = ""});
  }
  return out;
}

}  // namespace eps::engine
