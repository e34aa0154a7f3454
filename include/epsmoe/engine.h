// Runs a Mixture-of-Experts model: the API for programs that embed epsmoe.
//
//   auto engine = eps::Engine::open({.model = "models/austen-moe", .ep = 2});
//   engine->generate({.prompt = "It is a truth"}, [](std::string_view text) { std::cout << text; return true; });
//
// Threads  one caller at a time
// Errors   every function may throw eps::Error (epsmoe/error.h)
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

// One line about a part of a model's files that the engine does not use.
struct LoadNote {
  std::string text;
  bool is_warning = false;  // true: results may differ from those of other programs; false: for information only
};

struct GenerateRequest;

struct EngineOptions {
  std::string model = {};      // a folder with config.json, safetensors and tokenizer.json; or a preset's name
  bool dummy_weights = false;  // random weights; `model` may then be a folder without weights or a preset
  std::string device = "cpu";  // "cpu", "cuda", or "reference": slow, for checking results
  std::string dtype = "auto";  // compute type: "auto", "f32", "bf16"
  int ep = 1;                  // expert-parallel ranks; must divide the number of experts
  // How the ranks split attention and experts: "dp+ep", each rank attends for its own sequences and has its own
  // experts; "tp+ep", each rank attends with its heads for all sequences; "tp+tp", and has a part of every expert;
  // "auto", by prediction. Only dp+ep gives the same bits for every number of ranks. GPUs run dp+ep alone.
  std::string strategy = "dp+ep";
  std::vector<int> gpus = {};         // "cuda" only: the GPU of each rank, in CUDA's numbering; empty: rank r, GPU r
  std::string eps_pipeline = "auto";  // "auto", "off", "all", "microbatch" or a number of stages
  std::string profile = {};           // hardware profile to plan with: a name or a file; empty: the best available
  int threads = 0;                    // per rank; 0: the usable cores divided by the number of ranks, at least 1
  int64_t max_num_batched_tokens = 2048;  // at most, in one prefill step
  int64_t max_model_len = 0;              // context length; 0: the model's own
  bool record_trace = false;
  std::string emulate_link = {};      // "1GB/s,20us": slow the transport between ranks to this; empty: full speed
  int64_t comm_timeout_ms = 300'000;  // a rank that waits longer than this for another one fails
  // Once it requests a stop, ends the current call, including open(), within about 100 ms; each function documents how.
  // The engine can be used again after the request has been withdrawn.
  StopToken stop = {};
  // Called while weights load, with the bytes loaded so far and the total.
  std::function<void(uint64_t, uint64_t)> on_load_progress = {};
  std::function<void(const LoadNote&)> on_note = {};  // called before weights load
  // Called before weights load if no measured profile fits the engine. It may measure this machine and store the
  // profile where the engine finds it; true: it did, and the engine chooses a profile again.
  std::function<bool()> on_unmeasured = {};
  // The first request, if it is known: open() refuses what generate() would refuse, but before weights load. It must
  // exist until open() returns.
  const GenerateRequest* first_request = nullptr;
};

struct GenerateRequest {
  std::string prompt = {};
  int64_t max_tokens = 0;  // 0: the value of generation_config.json, or else 256
  // Fields that are not set take their values from the model's generation_config.json. The names are those of
  // SamplingOptions, which also has the settings that only the file can change.
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
  std::optional<std::vector<std::string>> stop = {};  // texts that end the output; they stay in it
  bool use_generation_config = true;                  // false: generation_config.json is not read
};

struct GenerateResult {
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> ids;
  std::string text;
  std::string finish_reason;  // "stop", "length" or "interrupted"
  double prefill_seconds = 0;
  double decode_seconds = 0;  // for all tokens after the first
  double time_to_first_token_seconds = 0;
  std::vector<std::string> notes;  // settings of generation_config.json that had no effect, one line each
};

// Receives each piece of text once later tokens can no longer change it. Returns false to stop.
using TextCallback = std::function<bool(std::string_view)>;

struct PerplexityResult {
  double perplexity = 0;
  double nll = 0;  // negative log-likelihood, summed over the tokens, in nats
  int64_t num_tokens = 0;
  int64_t window = 0;
  double seconds = 0;
};

// Statistics of all ranks since the engine was opened.
struct EngineReport {
  std::vector<std::string> op_sets;                 // [ranks]
  std::string dtype;                                // compute type: "f32", "bf16"
  std::string strategy;                             // "dp+ep", "tp+ep" or "tp+tp"
  std::map<int, int64_t> moe_layers_by_stages;      // number of stages -> how many MoE layers ran with it
  std::map<std::string, int64_t> stages_by_kernel;  // kernel -> how many stages ran with it, over all ranks
  double communication_seconds = 0;                 // dispatch and combine of the timed layers, summed over ranks
  double hidden_communication_seconds = 0;          // the part of it that ran under compute
  std::string profile;                              // name of the profile that plans were made with
  std::string profile_note;                         // why no better profile was used; empty: nothing to report
  int64_t moe_layers_timed = 0;                     // on rank 0: all on the CPU, a sample on several GPUs
  double predicted_seconds = 0;                     // predicted time of the timed layers
  double measured_seconds = 0;                      // their measured time, from the first op to the last
  double setup_seconds = 0;                // in addition: planning, sorting rows and memory, before the first op
  double error_seconds = 0;                // Σ |predicted - measured| over these layers
  int64_t plans_made = 0;                  // all other layers reused a cached plan
  std::vector<std::vector<int64_t>> load;  // [layer][expert] rows; empty for layers without experts
};

class Engine {
 public:
  static std::unique_ptr<Engine> open(const EngineOptions& options);
  virtual ~Engine() = default;

  // `on_text` receives the text as it becomes final; exceptions that it throws are passed on. When stopped during
  // generation, returns the text so far with finish_reason "interrupted".
  //
  // Errors  kInterrupted: stopped before the first token
  virtual GenerateResult generate(const GenerateRequest& request, const TextCallback& on_text) = 0;

  // Perplexity of a text. Its tokens are scored in windows of `window` tokens (0: 512, or the context if that is
  // shorter); each window starts with only the begin-of-text token as context, and every token is predicted once.
  // `keep_going` (may be null) is called between steps with the number of tokens scored so far and the total; when it
  // returns false, or EngineOptions::stop ends a step, the result covers the tokens scored so far.
  virtual PerplexityResult perplexity(std::string_view text, int64_t window,
                                      const std::function<bool(int64_t, int64_t)>& keep_going) = 0;

  // Times one prefill of `prompt_tokens` random tokens, then the decoding of `decode_tokens` random ones, whichever
  // tokens the model would choose. A part with 0 tokens is skipped. The context already contains `depth` random tokens,
  // whose prefill is not timed.
  //
  // Errors  kUsage: all tokens together are longer than the context
  struct StepTimes {
    double prefill_seconds = 0;
    double decode_seconds = 0;
    bool complete = true;  // false: stopped early
  };
  virtual StepTimes time_steps(int64_t prompt_tokens, int64_t decode_tokens, uint64_t seed, int64_t depth = 0) = 0;

  // Times `batch_size` sequences of `input_len` random tokens that run together: their prefill, in steps of at most
  // max_num_batched_tokens over all of them, then greedy decoding, one token of each sequence per step. The first of
  // the `output_len` tokens of each sequence comes from the prefill, so there are output_len - 1 decoding steps (0:
  // none). `keep_going` (may be null) is called between steps; returning false stops, as does EngineOptions::stop.
  //
  // Errors  kUsage: the sequences are longer than the context
  // Cost    the key-value caches are kept for the next call
  struct BatchWork {
    int64_t batch_size = 1;
    int64_t input_len = 1;
    int64_t output_len = 0;
    uint64_t seed = 0;
  };
  struct BatchTimes {
    double prefill_seconds = 0;          // until every sequence has its first token
    std::vector<double> decode_seconds;  // [decoding steps]
    bool complete = true;                // false: stopped early
  };
  virtual BatchTimes time_batch(const BatchWork& work, const std::function<bool()>& keep_going) = 0;

  // Times `num_requests` requests of the same size, up to `max_num_seqs` of them at once: when some finish, others
  // start and are prefilled before the next token is decoded. `keep_going` receives the number of finished requests and
  // the total.
  //
  // Errors, cost  as for time_batch
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
    int64_t num_prompt_tokens = 0;  // this and the next include unfinished requests
    int64_t num_output_tokens = 0;
  };
  virtual RequestTimes time_requests(const RequestWork& work,
                                     const std::function<bool(int64_t, int64_t)>& keep_going) = 0;

  // Floating-point operations of prefilling `num_sequences` sequences of `length` tokens: two for each parameter that a
  // token is multiplied with (once per sequence for the output matrix), plus causal attention.
  virtual double prefill_flops(int64_t num_sequences, int64_t length) const = 0;

  virtual EngineReport report() const = 0;
  virtual std::string trace_json() const = 0;  // requires record_trace
  virtual int64_t num_parameters() const = 0;
  virtual uint64_t weight_bytes() const = 0;
  virtual int64_t max_model_len() const = 0;
};

}  // namespace eps
