#include "epsmoe/engine.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/error.h"
#include "base/machine_memory.h"
#include "base/stop.h"
#include "engine/batch_timing.h"
#include "engine/factory.h"
#include "engine/generation_settings.h"
#include "engine/model_folder.h"
#include "engine/profile_choice.h"
#include "engine/random_tokens.h"
#include "engine/rank_group.h"
#include "engine/sampler.h"
#include "engine/sequence_cache.h"
#include "engine/strategy_choice.h"
#include "report/chrome_trace.h"

namespace eps {
namespace {

double seconds_since(int64_t begin_ns) { return static_cast<double>(now_ns() - begin_ns) * 1e-9; }

void require_finite(std::span<const float> logits) {
  if (!ops::all_finite(logits)) throw model::LogitsError();
}

// -log softmax(logits)[id], in double.
double negative_log_likelihood(std::span<const float> logits, int32_t id) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits) sum += std::exp(static_cast<double>(v) - top);
  return top + std::log(sum) - static_cast<double>(logits[static_cast<size_t>(id)]);
}

void require_at_least(int64_t least, const char* field, int64_t value) {
  if (value >= least) return;
  fail(ErrorKind::kUsage, field,
       {.what = "out of range", .got = std::to_string(value), .wanted = fmt::format("{} or more", least), .hint = ""});
}

// Whether one of `stops` ends within the last `num_fresh` bytes of `text`.
bool ends_in_stop(std::string_view text, size_t num_fresh, const std::vector<std::string>& stops) {
  return std::ranges::any_of(stops, [&](const std::string& stop) {
    const size_t tail = std::min(text.size(), num_fresh + stop.size() - 1);
    return text.substr(text.size() - tail).find(stop) != std::string_view::npos;
  });
}

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(const EngineOptions& options)
      : options_(options), folder_(engine::open_model_folder(options.model, options.dummy_weights)) {
    require_at_least(1, "ep", options.ep);
    require_at_least(0, "threads", options.threads);
    require_at_least(0, "max_model_len", options.max_model_len);
    require_at_least(1, "max_num_batched_tokens", options.max_num_batched_tokens);
    engine::RankGroupOptions group;
    group.num_ranks = options.ep;
    group.pipeline = plan::parse_pipeline_option(options.eps_pipeline);
    group.record_trace = options.record_trace;
    group.stop = options.stop;
    if (folder_.checkpoint) model::refuse_misplaced(folder_.weights, *folder_.checkpoint);
    if (options.on_note) {
      for (const LoadNote& note : folder_.notes) options.on_note(note);
    }
    // Usage errors are reported before the weights are read, which can take minutes.
    const bool is_auto = options.strategy == "auto";
    if (!is_auto) {
      group.strategy = engine::parse_requested_strategy(options.strategy, options.ep);
      engine::require_support(folder_.spec, group.strategy, options.ep, options.device != "cuda");
    }
    engine::check_rank_options(folder_.spec, group);
    auto comms = engine::make_communicators(options.ep, std::chrono::milliseconds(options.comm_timeout_ms),
                                            options.emulate_link, options.stop);
    max_model_len_ = options.max_model_len > 0 ? options.max_model_len : folder_.spec.max_positions;
    if (max_model_len_ > folder_.spec.max_positions) {
      fail(ErrorKind::kUsage, "max_model_len",
           {.what = "longer than the model's positions",
            .got = std::to_string(max_model_len_),
            .wanted = fmt::format("at most {}", folder_.spec.max_positions),
            .hint = ""});
    }
    folder_.spec.max_positions = max_model_len_;  // a smaller rope table is enough
    const int threads = options.threads > 0 ? options.threads : engine::default_threads_per_rank(options.ep);
    auto ops = engine::make_op_sets(options.device, options.dtype, options.ep, threads, options.stop,
                                    engine::rank_thread_use(options.emulate_link), options.gpus);
    if (ops.front()->device() != nullptr && !options.emulate_link.empty()) {
      fail(ErrorKind::kUsage, "emulate_link",
           {.what = "ranks on GPUs access each other's memory directly, so there is no transport to slow down",
            .got = options.emulate_link,
            .wanted = "",
            .hint = "`device` cpu"});
    }
    engine::check_local_pipeline(*ops.front(), group);
    group.weight_dtype = ops.front()->weight_dtype(engine::stored_dtype(folder_));
    if (ops.front()->device() == nullptr) require_memory();
    if (options.first_request != nullptr) prepare(*options.first_request);
    const engine::ProfileQuery query{.requested = options.profile,
                                     .op_set = ops.front()->description(),
                                     .threads = threads,
                                     .num_ranks = options.ep,
                                     .weight_dtype = group.weight_dtype,
                                     .emulated_link = options.emulate_link.empty()
                                                          ? std::nullopt
                                                          : std::optional(comm::parse_link_spec(options.emulate_link)),
                                     .shape = planned_shape(group.weight_dtype, ops.front()->compute_dtype())};
    engine::ChosenProfile profile = engine::choose_profile(query);
    if (!profile.fits() && options.on_unmeasured && options.on_unmeasured()) profile = engine::choose_profile(query);
    if (options.on_note) {
      for (const std::string& error : profile.broken) options.on_note({error + " (profile skipped)", true});
    }
    if (is_auto) {
      using Mode = plan::PipelineOption::Mode;
      engine::ChosenStrategy chosen = engine::choose_strategy(
          {.requested = options.strategy,
           .spec = &folder_.spec,
           .profile = &profile.profile,
           .num_ranks = options.ep,
           .on_host = ops.front()->memory().on_host(),
           .wants_stages = group.pipeline.mode != Mode::kAuto && group.pipeline.mode != Mode::kOff,
           .step_tokens = std::min(options.max_num_batched_tokens, max_model_len_),
           .weight_dtype = group.weight_dtype,
           .act_dtype = ops.front()->compute_dtype()});
      group.strategy = chosen.strategy;
      if (options.on_note) options.on_note({chosen.reason, false});
    }
    strategy_ = group.strategy;
    group.profile = std::move(profile.profile);
    profile_note_ = std::move(profile.note);
    const auto make_source = [this] {
      return folder_.checkpoint
                 ? model::make_checkpoint_source(*folder_.checkpoint, *folder_.names, folder_.spec.fp8_blocks)
                 : model::make_dummy_source(0, options_.stop);
    };
    const uint64_t total = folder_.weights.used_bytes;
    interruptible("loading weights", [&] {
      models_ = engine::RankModels::load(
          folder_.spec, *folder_.family, make_source, ops,
          [&](uint64_t done) {
            throw_if_stopped(options_.stop);
            if (options_.on_load_progress) options_.on_load_progress(done, total);
          },
          group.strategy);
    });
    ranks_ = std::make_unique<engine::RankGroup>(models_, std::move(ops), std::move(comms), group);
    batch_ = std::make_unique<engine::BatchRun>(*ranks_, folder_.spec, options.max_num_batched_tokens);
    profile_name_ = group.profile.name;
  }

  GenerateResult generate(const GenerateRequest& request, const TextCallback& on_text) override {
    PreparedRequest prepared = prepare(request);
    engine::GenerationSettings& settings = prepared.settings;
    engine::Sampler& sampler = prepared.sampler;
    GenerateResult result;
    result.prompt_ids = std::move(prepared.prompt_ids);
    result.notes = std::move(settings.notes);

    engine::SequenceCache cache(*ranks_, 0, max_model_len_);
    io::StreamDecoder decoder(*folder_.tokenizer, true);
    const int64_t start = now_ns();
    int32_t id = interruptible("prefilling the prompt", [&] { return prefill(cache, result.prompt_ids, &sampler); });
    result.prefill_seconds = seconds_since(start);
    int64_t decode_start = 0;
    result.finish_reason = "length";
    while (std::ssize(result.ids) < settings.max_tokens) {
      if (result.ids.empty()) {
        result.time_to_first_token_seconds = seconds_since(start);
        decode_start = now_ns();
      }
      result.ids.push_back(id);
      sampler.append(id);
      if (!request.ignore_eos && std::ranges::find(settings.eos_ids, id) != settings.eos_ids.end()) {
        result.finish_reason = "stop";
        break;
      }
      const std::string piece = decoder.push(id);
      result.text += piece;
      if (!on_text(piece)) {
        result.finish_reason = "interrupted";
        break;
      }
      if (ends_in_stop(result.text, piece.size(), settings.stop)) {
        result.finish_reason = "stop";
        break;
      }
      if (std::ssize(result.ids) == settings.max_tokens) break;
      if (!completes([&] { id = step_one(cache, std::span(&id, 1), &sampler); })) {
        result.finish_reason = "interrupted";
        break;
      }
    }
    if (decode_start != 0) result.decode_seconds = seconds_since(decode_start);
    const std::string rest = decoder.flush();
    result.text += rest;
    if (!rest.empty()) on_text(rest);
    return result;
  }

  PerplexityResult perplexity(std::string_view text, int64_t window,
                              const std::function<bool(int64_t, int64_t)>& keep_going) override {
    require_tokenizer();
    require_at_least(0, "window", window);
    const int32_t bos = engine::bos_token(folder_);
    bool stopped = false;
    // Encoding hundreds of megabytes takes a while, so it can be stopped as well. Nothing has been scored by then.
    const auto may_encode = [&] { return !(stopped = stopped || (keep_going && !keep_going(0, 0))); };
    const std::vector<int32_t> ids = engine::encode_text(folder_, text, may_encode);
    if (stopped) return {};
    if (ids.empty())
      fail(ErrorKind::kInput, "text", {.what = "is empty", .got = "", .wanted = "some text", .hint = ""});
    PerplexityResult result;
    constexpr int64_t kDefaultWindow = 512;
    result.window = window > 0 ? window : std::min(kDefaultWindow, max_model_len_);
    if (result.window > max_model_len_) {
      fail(ErrorKind::kUsage, "window",
           {.what = "longer than the context",
            .got = std::to_string(result.window),
            .wanted = fmt::format("at most {}", max_model_len_),
            .hint = ""});
    }
    const int64_t start = now_ns();
    const int64_t total = std::ssize(ids);
    const int64_t num_windows = (total + result.window - 1) / result.window;
    // A step has about max_num_batched_tokens per rank, and the same number of windows on every rank so that none
    // idles.
    const int64_t per_rank =
        std::min(num_windows, std::max<int64_t>(1, options_.max_num_batched_tokens / result.window));
    // Ranks that split attention process the tokens of all windows.
    const int64_t per_step = ranks_->splits_attention() ? per_rank : per_rank * options_.ep;
    for (int64_t first = 0; first < num_windows; first += per_step) {
      if (keep_going && !keep_going(result.num_tokens, total)) break;
      const int64_t count = std::min(per_step, num_windows - first);
      if (completes([&] { score_windows(ids, bos, first, count, result); })) continue;
      if (result.num_tokens == 0) fail_interrupted("scoring the first window");
      break;
    }
    result.perplexity = result.num_tokens > 0 ? std::exp(result.nll / static_cast<double>(result.num_tokens)) : 0.0;
    result.seconds = seconds_since(start);
    return result;
  }

  StepTimes time_steps(int64_t prompt_tokens, int64_t decode_tokens, uint64_t seed, int64_t depth) override {
    require_at_least(0, "depth", depth);
    require_at_least(0, "prompt_tokens", prompt_tokens);
    require_at_least(0, "decode_tokens", decode_tokens);
    // The lengths are checked one by one, because their sum may overflow.
    const int64_t room = max_model_len_ - std::min(depth, max_model_len_);
    if (prompt_tokens > room || decode_tokens > room - prompt_tokens) {
      const bool is_prompt = prompt_tokens > room || decode_tokens == 0;
      fail(ErrorKind::kUsage, is_prompt ? "prompt_tokens" : "decode_tokens",
           {.what = is_prompt || prompt_tokens == 0
                        ? "longer than the context"
                        : fmt::format("with `prompt_tokens` {} longer than the context", prompt_tokens),
            .got = fmt::format("{} tokens", is_prompt ? prompt_tokens : decode_tokens),
            .wanted = fmt::format("at most {}", is_prompt ? room : room - prompt_tokens),
            .hint = ""});
    }
    engine::RandomTokens tokens(seed, folder_.spec.vocab_size);
    StepTimes times;
    engine::SequenceCache cache(*ranks_, 0, max_model_len_);
    if (depth > 0) times.complete = completes([&] { prefill(cache, tokens.next(depth), nullptr); });
    if (prompt_tokens > 0 && times.complete) {
      const std::vector<int32_t> ids = tokens.next(prompt_tokens);
      const int64_t start = now_ns();
      times.complete = completes([&] { prefill(cache, ids, nullptr); });
      times.prefill_seconds = seconds_since(start);
    }
    const int64_t start = now_ns();
    for (int64_t i = 0; i < decode_tokens && times.complete; ++i) {
      const int32_t id = tokens.next();
      times.complete = completes([&] { step_one(cache, std::span(&id, 1), nullptr); });
    }
    if (decode_tokens > 0) times.decode_seconds = seconds_since(start);
    return times;
  }

  BatchTimes time_batch(const BatchWork& work, const std::function<bool()>& keep_going) override {
    return eps::engine::time_batch(*batch_, folder_.spec, work, keep_going);
  }

  RequestTimes time_requests(const RequestWork& work,
                             const std::function<bool(int64_t, int64_t)>& keep_going) override {
    return eps::engine::time_requests(*batch_, folder_.spec, work, keep_going);
  }

  double prefill_flops(int64_t num_sequences, int64_t length) const override {
    return folder_.spec.prefill_flops(num_sequences, length);
  }

  EngineReport report() const override {
    EngineReport out;
    out.op_sets = ranks_->op_set_descriptions();
    out.dtype = to_string(ranks_->op_set(0).compute_dtype());
    out.strategy = plan::to_string(strategy_);
    exec::OverlapStats overlap;
    for (int r = 0; r < ranks_->num_ranks(); ++r) {
      overlap += ranks_->stats(r).overlap;
      for (const auto& [kernel, count] : ranks_->stats(r).stages_by_kernel) out.stages_by_kernel[kernel] += count;
    }
    out.moe_layers_by_stages = ranks_->stats(0).layers_by_stages;  // like the load, the same on every rank
    out.load = ranks_->stats(0).load;
    const exec::MoeStats& first = ranks_->stats(0);
    out.profile = profile_name_;
    out.profile_note = profile_note_;
    out.moe_layers_timed = first.num_layers_timed;
    out.predicted_seconds = first.predicted_us * 1e-6;
    out.measured_seconds = first.measured_us * 1e-6;
    out.setup_seconds = first.setup_us * 1e-6;
    out.error_seconds = first.error_us * 1e-6;
    out.plans_made = first.plans_made;
    out.communication_seconds = static_cast<double>(overlap.communication_ns) * 1e-9;
    out.hidden_communication_seconds = static_cast<double>(overlap.hidden_ns) * 1e-9;
    return out;
  }

  std::string trace_json() const override {
    if (ranks_->trace() == nullptr) {
      fail(ErrorKind::kUsage, "record_trace",
           {.what = "no trace was recorded", .got = "false", .wanted = "true", .hint = ""});
    }
    return report::chrome_trace_json(*ranks_->trace());
  }

  int64_t num_parameters() const override { return folder_.spec.total_parameters(); }
  uint64_t weight_bytes() const override {
    return folder_.checkpoint ? folder_.weights.used_bytes
                              : static_cast<uint64_t>(folder_.spec.total_parameters()) * size_of(DType::kBF16);
  }
  int64_t max_model_len() const override { return max_model_len_; }

 private:
  struct PreparedRequest {
    std::vector<int32_t> prompt_ids;
    engine::GenerationSettings settings;
    engine::Sampler sampler;
  };

  // Refuses weights that the machine cannot hold. Without this check, a large model would be loaded until the system
  // ends the process. Weights are counted as stored: packing hardly changes their size. With every strategy the ranks
  // hold one copy together, because they share what they have whole.
  void require_memory() const {
    const uint64_t memory = machine_memory_bytes();
    if (memory == 0 || weight_bytes() <= memory) return;
    fail(ErrorKind::kResource, options_.model,
         {.what = "the weights do not fit into memory",
          .got = fmt::format("{:.1f} GB of weights", static_cast<double>(weight_bytes()) * 1e-9),
          .wanted = fmt::format("at most {:.1f} GB, the memory of this machine", static_cast<double>(memory) * 1e-9),
          .hint = "epsmoe simulate, which needs no weights"});
  }

  // Everything about a request that can be wrong is found here, without the weights.
  PreparedRequest prepare(const GenerateRequest& request) const {
    require_tokenizer();
    if (request.prompt.empty()) {
      fail(ErrorKind::kInput, "prompt",
           {.what = "is empty", .got = "", .wanted = "some text", .hint = "`prompt` \"It is a truth\""});
    }
    std::vector<int32_t> ids = engine::encode_prompt(folder_, request.prompt, max_model_len_);
    if (ids.empty()) {
      fail(ErrorKind::kInput, "prompt",
           {.what = "the tokenizer turns it into no tokens", .got = request.prompt, .wanted = "some text", .hint = ""});
    }
    engine::GenerationSettings settings = engine::resolve_generation(request, folder_, std::ssize(ids), max_model_len_);
    engine::Sampler sampler(settings.sampling, {ids, settings.eos_ids, settings.max_tokens});
    return {std::move(ids), std::move(settings), std::move(sampler)};
  }

  // The sizes of the MoE layers, or none for a dense model.
  std::optional<plan::MoeShape> planned_shape(DType weights, DType activations) const {
    if (folder_.spec.first_moe_layer() < 0) return std::nullopt;
    return arch::moe_shape(folder_.spec, weights, activations);
  }

  void require_tokenizer() const {
    if (folder_.tokenizer) return;
    fail(ErrorKind::kInput, options_.model,
         {.what = "has no tokenizer.json, which is needed to encode text",
          .got = "",
          .wanted = "",
          .hint = "a model folder with one"});
  }

  // Processes `ids`, at least one, in steps of at most max_num_batched_tokens. Returns the token sampled after the
  // last.
  int32_t prefill(const engine::SequenceCache& cache, std::span<const int32_t> ids, engine::Sampler* sampler) {
    EPS_CHECK(!ids.empty());
    const auto most = static_cast<size_t>(options_.max_num_batched_tokens);
    for (; ids.size() > most; ids = ids.subspan(most)) {
      const engine::PlacedChunk chunk = cache.chunk(ids.first(most), model::StepOutput::kNone);
      ranks_->step(std::span(&chunk, 1), {});
    }
    return step_one(cache, ids, sampler);
  }

  // Runs one step of one sequence, which belongs to rank 0. With data-parallel attention, the other ranks only compute
  // their experts. A null `sampler` means greedy sampling.
  int32_t step_one(const engine::SequenceCache& cache, std::span<const int32_t> ids, engine::Sampler* sampler) {
    engine::PlacedChunk chunk = cache.chunk(ids, model::StepOutput::kToken);
    model::HostSampler on_host;
    if (sampler != nullptr && sampler->is_plain()) {
      chunk.chunk.params = sampler->next_params();
    } else if (sampler != nullptr) {
      on_host = [sampler](std::span<float> logits) { return sampler->sample(logits); };
      chunk.chunk.host_sampler = &on_host;
    }
    return ranks_->step(std::span(&chunk, 1), {}).front();
  }

  // Adds the windows [first, first + count) to `result`; window i is computed by rank i % ep.
  void score_windows(const std::vector<int32_t>& ids, int32_t bos, int64_t first, int64_t count,
                     PerplexityResult& result) {
    struct Window {
      std::vector<int32_t> inputs;
      std::span<const int32_t> labels;
      double nll = 0;
      std::unique_ptr<engine::SequenceCache> cache;
    };
    std::vector<Window> windows(static_cast<size_t>(count));
    std::vector<engine::PlacedChunk> chunks;
    for (int64_t i = 0; i < count; ++i) {
      Window& w = windows[static_cast<size_t>(i)];
      const int64_t begin = (first + i) * result.window;
      const int64_t length = std::min(result.window, std::ssize(ids) - begin);
      w.labels = std::span(ids).subspan(static_cast<size_t>(begin), static_cast<size_t>(length));
      w.inputs.push_back(bos);
      w.inputs.insert(w.inputs.end(), w.labels.begin(), w.labels.end() - 1);
      const int rank = static_cast<int>(i % options_.ep);
      w.cache = std::make_unique<engine::SequenceCache>(*ranks_, rank, max_model_len_);
      chunks.push_back(w.cache->chunk(w.inputs, model::StepOutput::kAllLogits));
    }
    ranks_->step(chunks, [&windows](size_t i, int64_t position, std::span<const float> logits) {
      Window& w = windows[i];
      require_finite(logits);
      w.nll += negative_log_likelihood(logits, w.labels[static_cast<size_t>(position)]);
    });
    for (const Window& w : windows) {
      result.nll += w.nll;
      result.num_tokens += std::ssize(w.labels);
    }
  }

  EngineOptions options_;
  engine::ModelFolder folder_;  // declared before models_, which keep a weight source that refers to its checkpoint
  int64_t max_model_len_ = 0;
  plan::Strategy strategy_ = plan::Strategy::kDpEp;
  engine::RankModels models_;
  std::unique_ptr<engine::RankGroup> ranks_;
  std::unique_ptr<engine::BatchRun> batch_;
  std::string profile_name_, profile_note_;
};

}  // namespace

std::unique_ptr<Engine> Engine::open(const EngineOptions& options) { return std::make_unique<EngineImpl>(options); }

}  // namespace eps
