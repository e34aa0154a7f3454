// Sequences run together: prompts prefilled in steps of a token budget, then one token of each a step, greedily.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/rank_group.h"
#include "model/kv_cache.h"

namespace eps {

struct BatchSequence {
  size_t id = 0;
  int rank = 0;
  std::vector<int32_t> prompt;
  int64_t num_output = 0;  // wanted
  std::vector<int32_t> output;
  int64_t num_prefilled = 0;
  std::unique_ptr<KvCache> cache;  // null once it has left

  int64_t num_waiting() const { return std::ssize(prompt) - num_prefilled; }
  bool is_finished() const { return num_waiting() == 0 && std::ssize(output) >= num_output; }
};

class BatchRun {
 public:
  // Both references outlive the run. `max_num_batched_tokens`: of one prefill step, over all sequences and ranks.
  BatchRun(RankGroup& ranks, const ModelSpec& spec, int64_t max_num_batched_tokens)
      : ranks_(ranks),
        spec_(spec),
        max_num_batched_tokens_(max_num_batched_tokens),
        spare_caches_(static_cast<size_t>(ranks.num_ranks())) {}

  // A sequence of `num_output` tokens after a prompt of one token or more, on the rank that has the fewest; its cache's
  // room is set aside here, from caches of sequences that have left where there are any: devices record a step anew
  // when memory was allocated since. Sequences are numbered in the order they come. Errors  kUsage: longer than the
  // context
  void add(std::vector<int32_t> prompt, int64_t num_output);

  // One step of the oldest prompts: those that fit the budget whole, or a piece of the first if it alone does not. The
  // last piece of a prompt brings its first output token, where one is wanted. False, and no step: nothing to prefill.
  bool prefill_step();

  // One step for the next token of every prefilled and unfinished sequence. False, and no step: there is none.
  bool decode_step();

  // Takes those out that have all their tokens.
  std::vector<BatchSequence> take_finished();

  // Drops all sequences.
  void cancel();

  std::span<const BatchSequence> sequences() const { return sequences_; }

 private:
  struct Part {
    BatchSequence* sequence;
    PlacedChunk chunk;
  };
  std::unique_ptr<KvCache> take_cache(int rank, int64_t num_tokens);
  void keep_cache(BatchSequence& sequence);
  std::vector<Part> next_prompts();
  void step(const std::vector<Part>& parts);

  RankGroup& ranks_;
  const ModelSpec& spec_;
  int64_t max_num_batched_tokens_;
  std::vector<BatchSequence> sequences_;
  std::vector<std::vector<std::unique_ptr<KvCache>>> spare_caches_;  // by rank
  size_t next_id_ = 0;
};

}  // namespace eps
