#include "ops/cuda/attention_runs.h"

#include <algorithm>

namespace eps::cuda {

std::vector<AttentionRun> group_sequences(std::span<const DeviceSequence> sequences,
                                          const std::function<AttentionForm(const DeviceSequence&)>& choose) {
  std::vector<AttentionRun> runs;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const DeviceSequence& s = sequences[i];
    if (s.q_count == 0) continue;
    const AttentionForm form = choose(s);
    // If a long sequence ran together with short ones, each short one would occupy as large a part of the grid.
    constexpr int kFew = 8;
    const bool few = s.q_count <= kFew;
    if (runs.empty() || runs.back().form != form || (runs.back().max_q_count <= kFew) != few ||
        runs.back().first + runs.back().count != i || runs.back().token_begin + runs.back().num_tokens != s.q_begin) {
      runs.push_back({.form = form, .first = i, .token_begin = s.q_begin});
    }
    AttentionRun& run = runs.back();
    ++run.count;
    run.num_tokens += s.q_count;
    run.max_q_count = std::max(run.max_q_count, s.q_count);
  }
  return runs;
}

}  // namespace eps::cuda
