// Divides the sequences of a step into runs that one kernel processes together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

enum class AttentionForm : uint8_t { kDecode, kPrefill, kPlain };

// Adjacent sequences with new tokens; their rows of q are contiguous.
struct AttentionRun {
  AttentionForm form = AttentionForm::kPlain;
  size_t first = 0;
  size_t count = 0;
  int token_begin = 0;
  int num_tokens = 0;
  int max_q_count = 0;
};

// `choose` returns the form of a sequence with new tokens. Sequences without any are left out.
std::vector<AttentionRun> group_sequences(std::span<const DeviceSequence> sequences,
                                          const std::function<AttentionForm(const DeviceSequence&)>& choose);

}  // namespace eps::cuda
