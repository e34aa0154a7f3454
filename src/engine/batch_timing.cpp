#include "engine/batch_timing.h"

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "base/stop.h"
#include "engine/random_tokens.h"

namespace eps::engine {
namespace {

double seconds_between(int64_t begin_ns, int64_t end_ns) { return static_cast<double>(end_ns - begin_ns) * 1e-9; }

void require_at_least(int64_t least, const char* field, int64_t value) {
  if (value >= least) return;
  fail(ErrorKind::kUsage, field,
       {.what = "out of range", .got = std::to_string(value), .wanted = fmt::format("{} or more", least), .hint = ""});
}

// Names input_len if the prompt alone is too long, else output_len.
void require_fits(const arch::ModelSpec& spec, int64_t input_len, int64_t output_len) {
  const int64_t room = spec.max_positions;
  if (input_len > room) {
    fail(ErrorKind::kUsage, "input_len",
         {.what = "longer than the context",
          .got = fmt::format("{} tokens", input_len),
          .wanted = fmt::format("at most {}", room),
          .hint = ""});
  }
  if (output_len > room - input_len) {
    fail(ErrorKind::kUsage, "output_len",
         {.what = fmt::format("with `input_len` {} longer than the context of {} tokens", input_len, room),
          .got = fmt::format("{} tokens", output_len),
          .wanted = fmt::format("at most {}", room - input_len),
          .hint = ""});
  }
}

}  // namespace

Engine::BatchTimes time_batch(BatchRun& run, const arch::ModelSpec& spec, const Engine::BatchWork& work,
                              const std::function<bool()>& keep_going) {
  require_at_least(1, "batch_size", work.batch_size);
  require_at_least(1, "input_len", work.input_len);
  require_at_least(0, "output_len", work.output_len);
  require_fits(spec, work.input_len, work.output_len);
  run.cancel();
  RandomTokens tokens(work.seed, spec.vocab_size);
  for (int64_t i = 0; i < work.batch_size; ++i) run.add(tokens.next(work.input_len), work.output_len);

  Engine::BatchTimes times;
  const auto may_go_on = [&] { return times.complete = times.complete && (!keep_going || keep_going()); };
  // Returns whether there was a step to run and it was completed.
  const auto run_step = [&](bool (BatchRun::*step)()) {
    bool done = false;
    times.complete = completes([&] { done = (run.*step)(); });
    return done;
  };
  const int64_t start = now_ns();
  while (may_go_on() && run_step(&BatchRun::prefill_step)) {
  }
  int64_t last = now_ns();
  times.prefill_seconds = seconds_between(start, last);
  while (may_go_on() && run_step(&BatchRun::decode_step)) {
    const int64_t now = now_ns();
    times.decode_seconds.push_back(seconds_between(last, now));
    last = now;
  }
  run.cancel();
  return times;
}

Engine::RequestTimes time_requests(BatchRun& run, const arch::ModelSpec& spec, const Engine::RequestWork& work,
                                   const std::function<bool(int64_t, int64_t)>& keep_going) {
  require_at_least(1, "num_requests", work.num_requests);
  require_at_least(1, "input_len", work.input_len);
  require_at_least(1, "output_len", work.output_len);
  require_at_least(1, "max_num_seqs", work.max_num_seqs);
  require_fits(spec, work.input_len, work.output_len);
  run.cancel();
  RandomTokens tokens(work.seed, spec.vocab_size);
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < work.num_requests; ++i) prompts.push_back(tokens.next(work.input_len));

  Engine::RequestTimes times;
  const auto count = [&times](const BatchSequence& s) {
    times.num_prompt_tokens += s.num_prefilled;
    times.num_output_tokens += std::ssize(s.output);
  };
  auto next = prompts.begin();
  const auto admit = [&] {
    while (next != prompts.end() && std::ssize(run.sequences()) < work.max_num_seqs) {
      run.add(std::move(*next++), work.output_len);
    }
  };
  admit();  // before the clock starts, because it allocates caches; later requests reuse those of finished ones
  const int64_t start = now_ns();
  while (times.num_finished < work.num_requests) {
    if (keep_going && !keep_going(times.num_finished, work.num_requests)) break;
    admit();
    // Prompts come first, because a decoding step costs less per token the more sequences it has.
    if (!completes([&] { run.prefill_step() || run.decode_step(); })) break;
    for (const BatchSequence& s : run.take_finished()) {
      count(s);
      ++times.num_finished;
    }
  }
  times.seconds = seconds_between(start, now_ns());
  std::ranges::for_each(run.sequences(), count);
  run.cancel();
  return times;
}

}  // namespace eps::engine
