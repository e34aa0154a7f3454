// Runs sequences together: prompts are prefilled in steps of limited size, then every step decodes one token of each
// sequence greedily.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/rank_group.h"
#include "engine/sequence_cache.h"

namespace eps::engine {

struct BatchSequence {
  size_t id = 0;
  int rank = 0;
  std::vector<int32_t> prompt;
  int64_t num_output = 0;  // requested number of output tokens
  std::vector<int32_t> output;
  int64_t num_prefilled = 0;
  std::unique_ptr<SequenceCache> cache;  // null once the sequence is finished or cancelled

  int64_t num_unprocessed() const { return std::ssize(prompt) - num_prefilled; }
  bool is_finished() const { return num_unprocessed() == 0 && std::ssize(output) >= num_output; }
};

class BatchRun {
 public:
  // Both references outlive the run. `max_num_batched_tokens` limits one prefill step, over all sequences and ranks.
  BatchRun(RankGroup& ranks, const arch::ModelSpec& spec, int64_t max_num_batched_tokens)
      : ranks_(ranks),
        spec_(spec),
        max_num_batched_tokens_(max_num_batched_tokens),
        spare_caches_(static_cast<size_t>(ranks.num_ranks())) {}

  // Adds a sequence of `num_output` tokens after a prompt of at least one token, on the rank with the fewest sequences.
  // Its cache is allocated here, or taken from a finished sequence if possible: allocations make devices record a step
  // anew. Sequences are numbered in the order in which they are added.
  //
  // Errors  kUsage if the sequence is longer than the context
  void add(std::vector<int32_t> prompt, int64_t num_output);

  // Runs one step of the oldest prompts: as many whole prompts as fit the limit, or a piece of the first one if it does
  // not fit. The last piece of a prompt yields the first output token, if any were requested. Returns false, without a
  // step, if there is nothing to prefill.
  bool prefill_step();

  // Runs one step for the next token of every prefilled and unfinished sequence. Returns false, without a step, if
  // there is none.
  bool decode_step();

  // Removes and returns the sequences that have all their tokens.
  std::vector<BatchSequence> take_finished();

  // Drops all sequences.
  void cancel();

  std::span<const BatchSequence> sequences() const { return sequences_; }

 private:
  struct Part {
    BatchSequence* sequence;
    PlacedChunk chunk;
  };
  std::unique_ptr<SequenceCache> take_cache(int rank, int64_t num_tokens);
  void recycle_cache(BatchSequence& sequence);
  std::vector<Part> next_prompts();
  void step(const std::vector<Part>& parts);

  RankGroup& ranks_;
  const arch::ModelSpec& spec_;
  int64_t max_num_batched_tokens_;
  std::vector<BatchSequence> sequences_;
  std::vector<std::vector<std::unique_ptr<SequenceCache>>> spare_caches_;  // by rank
  size_t next_id_ = 0;
};

}  // namespace eps::engine
