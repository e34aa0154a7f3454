// Run a Mixture-of-Experts model: the API for programs that embed epsmoe.
//
//   auto engine = eps::Engine::open({.model = "models/austen-moe", .ep = 2});
//   engine->generate({.prompt = "It is a truth"}, [](std::string_view text) { std::cout << text; return true; });
//
// Threads  one caller at a time. Every function may throw eps::Error (epsmoe/error.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "epsmoe/sampling.h"
#include "epsmoe/stop.h"

namespace eps {

// Something about a model's files that opening them did not use, in one line.
struct LoadNote {
  std::string text;
  bool is_warning = false;  // results may differ from those of other programs; else for the curious
};

struct EngineOptions {
  std::string model = {};             // a folder with config.json, safetensors and tokenizer.json; or a preset's name
  bool dummy_weights = false;         // random weights; `model` then needs no weights, and may be a preset's name
  std::string device = "cpu";         // "cpu", "cuda", or "reference": slow, for checking
  std::string dtype = "auto";         // compute: "auto", "f32", "bf16"
  int ep = 1;                         // expert-parallel ranks; must divide the experts
  std::vector<int> gpus = {};         // "cuda" only: the GPU of each rank, as CUDA counts; empty: rank r on GPU r
  std::string eps_pipeline = "auto";  // "auto", "off", "all", "microbatch" or a number of stages
  std::string profile = {};           // that plans are made for: a name or a file; empty: the best there is
  int threads = 0;                    // per rank; 0: the usable cores divided by the ranks, at least 1
  int64_t max_num_batched_tokens = 2048;  // of one prefill step
  int64_t max_model_len = 0;              // context; 0: what the model was made for
  bool record_trace = false;
  std::string emulate_link = {};      // "1GB/s,20us": pace the ranks' transport to this; empty: as fast as it goes
  int64_t comm_timeout_ms = 300'000;  // a rank waiting longer for another one fails
  // Ends what is under way, opening included, within about 100 ms after it asks to stop: each call says how. The engine
  // can then be used again once the flag is down.
  StopToken stop = {};
  // Called while weights load, with bytes done and bytes in all.
  std::function<void(uint64_t, uint64_t)> on_load_progress = {};
  std::function<void(const LoadNote&)> on_note = {};  // called before weights load
};

struct GenerateRequest {
  std::string prompt = {};
  int64_t max_tokens = 0;  // 0: the model's suggestion, or 256
  // What is not set here comes from the model's generation_config.json. The names are those of SamplingOptions, which
  // also holds what only the file can set.
  std::optional<double> temperature = {};
  std::optional<int64_t> top_k = {};
  std::optional<double> top_p = {};
  uint64_t seed = 0;
  bool ignore_eos = false;
  std::optional<double> min_p = {};
  std::optional<double> repetition_penalty = {};
  std::optional<double> frequency_penalty = {};
  std::optional<double> presence_penalty = {};
  std::optional<int64_t> no_repeat_ngram_size = {};
  std::optional<int64_t> min_tokens = {};
  std::optional<std::vector<std::vector<int32_t>>> bad_words_ids = {};
  std::optional<std::vector<int32_t>> suppress_tokens = {};
  std::optional<std::vector<int32_t>> begin_suppress_tokens = {};
  std::optional<std::vector<std::string>> stop = {};  // texts that end the output, which keeps them
  bool use_generation_config = true;                  // false: as if the model had no such file
};

struct GenerateResult {
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> ids;
  std::string text;
  std::string finish_reason;  // "stop", "length" or "interrupted"
  double prefill_seconds = 0;
  double decode_seconds = 0;  // of all tokens after the first
  double time_to_first_token_seconds = 0;
  std::vector<std::string> notes;  // what generation_config.json asks for and is not done, a line each
};

// Text as it becomes certain; return false to stop.
using TextCallback = std::function<bool(std::string_view)>;

struct PerplexityResult {
  double perplexity = 0;
  double nll = 0;  // summed, in nats
  int64_t num_tokens = 0;
  int64_t window = 0;
  double seconds = 0;
};

// What the ranks have done since the engine opened.
struct EngineReport {
  std::vector<std::string> op_sets;                 // by rank
  std::string dtype;                                // that they compute in: "f32", "bf16"
  std::map<int, int64_t> moe_layers_by_stages;      // MoE layers run with so many stages
  std::map<std::string, int64_t> stages_by_kernel;  // on all ranks
  double communication_seconds = 0;                 // dispatch and combine of the timed layers, summed over ranks
  double hidden_communication_seconds = 0;          // part of it under compute
  std::string profile;                              // that plans were made with
  std::string profile_note;                         // why not a better one; empty: there is none
  int64_t moe_layers_timed = 0;                     // on rank 0: all on the CPU, a sample on several GPUs
  double promised_seconds = 0;                      // what the plans of these layers said they would take
  double measured_seconds = 0;                      // what they took, from their first op to the last
  double setup_seconds = 0;                         // besides: plans made and rows sorted before the first op
  double error_seconds = 0;                         // the distance of the two, summed layer by layer
  int64_t plans_made = 0;                           // the other layers found theirs in the cache
  std::vector<std::vector<int64_t>> load;           // [layer][expert] rows; empty for layers without experts
};

class Engine {
 public:
  static std::unique_ptr<Engine> open(const EngineOptions& options);
  virtual ~Engine() = default;

  // `on_text` gets the text as it becomes certain; what it throws is passed on. A stop while text is generated returns
  // what there is, with finish_reason "interrupted".
  //
  // Errors  kInterrupted: stopped before the first token
  virtual GenerateResult generate(const GenerateRequest& request, const TextCallback& on_text) = 0;

  // Perplexity of a text: its tokens in windows of `window` (0: 512, or the context if that is shorter), each after the
  // begin-of-text token alone, every token predicted once. `keep_going` (may be null) is asked between steps with the
  // tokens done and in all; false stops with what was done, as EngineOptions::stop does in the middle of a step.
  virtual PerplexityResult perplexity(std::string_view text, int64_t window,
                                      const std::function<bool(int64_t, int64_t)>& keep_going) = 0;

  // Times one prefill of `prompt_tokens` random tokens, then the decoding of `decode_tokens` random ones, whatever the
  // likeliest; returns seconds of each. (0 tokens: that part is left out.) `depth` random tokens are in the context
  // already, and their own prefill is not timed.
  //
  // Errors  kUsage: longer than the context together
  struct StepTimes {
    double prefill_seconds = 0;
    double decode_seconds = 0;
    bool complete = true;  // false: stopped before the end
  };
  virtual StepTimes time_steps(int64_t prompt_tokens, int64_t decode_tokens, uint64_t seed, int64_t depth = 0) = 0;

  // Times `batch_size` sequences of `input_len` random tokens, run together: their prefill, in steps of at most
  // max_num_batched_tokens over all of them, then decoding, one token of each a step, always the likeliest. Of the
  // `output_len` tokens of each the first comes from the prefill, so there are output_len - 1 decoding steps (0: none).
  // `keep_going` (may be null) is asked between steps; false stops, as EngineOptions::stop does.
  //
  // Errors  kUsage: longer than the context
  // Cost    the caches stay for the next call
  struct BatchWork {
    int64_t batch_size = 1;
    int64_t input_len = 1;
    int64_t output_len = 0;
    uint64_t seed = 0;
  };
  struct BatchTimes {
    double prefill_seconds = 0;          // to the first token of all sequences
    std::vector<double> decode_seconds;  // by decoding step
    bool complete = true;                // false: stopped before the end
  };
  virtual BatchTimes time_batch(const BatchWork& work, const std::function<bool()>& keep_going) = 0;

  // Times `num_requests` alike requests, up to `max_num_seqs` of them at once: when some finish, others come in and are
  // prefilled before the next token is decoded. `keep_going` gets the requests done and in all.
  //
  // Errors, cost  as time_batch
  struct RequestWork {
    int64_t num_requests = 1;
    int64_t input_len = 1;
    int64_t output_len = 1;  // 1 or more
    int64_t max_num_seqs = 1;
    uint64_t seed = 0;
  };
  struct RequestTimes {
    double seconds = 0;
    int64_t num_finished = 0;
    int64_t num_prompt_tokens = 0;  // these two of unfinished requests, too
    int64_t num_output_tokens = 0;
  };
  virtual RequestTimes time_requests(const RequestWork& work,
                                     const std::function<bool(int64_t, int64_t)>& keep_going) = 0;

  // Multiplications and additions of prefilling `num_sequences` of `length` tokens: two for each parameter that a token
  // is multiplied with (the output matrix once a sequence) and causal attention.
  virtual double prefill_flops(int64_t num_sequences, int64_t length) const = 0;

  virtual EngineReport report() const = 0;
  virtual std::string trace_json() const = 0;  // needs record_trace
  virtual int64_t num_parameters() const = 0;
  virtual uint64_t weight_bytes() const = 0;
  virtual int64_t max_model_len() const = 0;
};

}  // namespace eps
