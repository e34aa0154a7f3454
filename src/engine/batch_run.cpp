#include "engine/batch_run.h"

#include <algorithm>

#include "base/error.h"

namespace eps::engine {

std::unique_ptr<SequenceCache> BatchRun::take_cache(int rank, int64_t num_tokens) {
  auto& spares = spare_caches_[static_cast<size_t>(rank)];
  std::unique_ptr<SequenceCache> cache;
  if (spares.empty()) {
    cache = std::make_unique<SequenceCache>(ranks_, rank, spec_.max_positions);
  } else {
    cache = std::move(spares.back());
    spares.pop_back();
  }
  cache->reserve(num_tokens);
  return cache;
}

void BatchRun::recycle_cache(BatchSequence& sequence) {
  sequence.cache->clear();
  spare_caches_[static_cast<size_t>(sequence.rank)].push_back(std::move(sequence.cache));
}

void BatchRun::add(std::vector<int32_t> prompt, int64_t num_output) {
  EPS_CHECK(!prompt.empty());
  std::vector<int64_t> count(static_cast<size_t>(ranks_.num_ranks()));
  for (const BatchSequence& s : sequences_) ++count[static_cast<size_t>(s.rank)];
  BatchSequence sequence;
  sequence.id = next_id_++;
  sequence.rank = static_cast<int>(std::ranges::min_element(count) - count.begin());
  sequence.num_output = num_output;
  // The last output token is not an input of any step, so it needs no place in the cache.
  const int64_t most_tokens = std::ssize(prompt) + std::max<int64_t>(0, num_output - 1);
  sequence.cache = take_cache(sequence.rank, most_tokens);
  sequence.prompt = std::move(prompt);
  sequences_.push_back(std::move(sequence));
}

std::vector<BatchRun::Part> BatchRun::next_prompts() {
  std::vector<Part> parts;
  int64_t left = max_num_batched_tokens_;
  for (BatchSequence& s : sequences_) {
    if (s.num_unprocessed() == 0) continue;
    if (!parts.empty() && s.num_unprocessed() > left) break;  // skipping a long prompt could delay it forever
    const int64_t count = std::min(s.num_unprocessed(), left);
    const auto ids =
        std::span<const int32_t>(s.prompt).subspan(static_cast<size_t>(s.num_prefilled), static_cast<size_t>(count));
    const model::StepOutput output =
        count == s.num_unprocessed() ? model::StepOutput::kToken : model::StepOutput::kNone;
    parts.push_back({&s, s.cache->chunk(ids, output)});
    left -= count;
    if (left == 0) break;
  }
  return parts;
}

void BatchRun::step(const std::vector<Part>& parts) {
  std::vector<PlacedChunk> chunks;
  for (const Part& part : parts) chunks.push_back(part.chunk);
  const std::vector<int32_t> tokens = ranks_.step(chunks, {});
  for (size_t i = 0; i < parts.size(); ++i) {
    BatchSequence& s = *parts[i].sequence;
    if (tokens[i] != ops::kNoToken && std::ssize(s.output) < s.num_output) s.output.push_back(tokens[i]);
  }
}

bool BatchRun::prefill_step() {
  const std::vector<Part> parts = next_prompts();
  if (parts.empty()) return false;
  step(parts);
  for (const Part& part : parts) part.sequence->num_prefilled += std::ssize(part.chunk.chunk.ids);
  return true;
}

bool BatchRun::decode_step() {
  std::vector<Part> parts;
  for (BatchSequence& s : sequences_) {
    if (s.num_unprocessed() > 0 || s.is_finished()) continue;
    parts.push_back({&s, s.cache->chunk(std::span(&s.output.back(), 1), model::StepOutput::kToken)});
  }
  if (parts.empty()) return false;
  step(parts);
  return true;
}

std::vector<BatchSequence> BatchRun::take_finished() {
  std::vector<BatchSequence> out;
  std::vector<BatchSequence> rest;
  for (BatchSequence& s : sequences_) {
    if (s.is_finished()) recycle_cache(s);
    (s.is_finished() ? out : rest).push_back(std::move(s));
  }
  sequences_ = std::move(rest);
  return out;
}

void BatchRun::cancel() {
  for (BatchSequence& s : sequences_) recycle_cache(s);
  sequences_.clear();
}

}  // namespace eps::engine
