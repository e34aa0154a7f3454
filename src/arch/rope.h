// Rotary position embedding: which elements of a head are rotated, and by which angles.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "ops/op_params.h"
#include "ops/step.h"

namespace eps::arch {

// All frequencies divided by `factor`.
struct LinearScaling {
  double factor = 1.0;
};

// Source  YaRN (arXiv 2309.00071) §3.2
struct YarnScaling {
  double factor = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double original_max_positions = 4096.0;
  double attention_factor = 1.0;  // multiplies cos and sin
  bool truncate = true;           // correction range rounded to whole dimensions
};

// Divides the frequencies of wavelengths beyond the original context, keeps those of short ones, and blends between.
// Source  the published code of Llama 3.1
struct Llama3Scaling {
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_positions = 8192.0;
};

using RopeScaling = std::variant<std::monostate, LinearScaling, YarnScaling, Llama3Scaling>;

struct RopeSpec {
  int dim = 0;  // elements of a head that are rotated
  double theta = 10000.0;
  ops::RopeLayout layout = {};
  RopeScaling scaling = {};

  const YarnScaling* yarn() const { return std::get_if<YarnScaling>(&scaling); }
};

// cos and sin [num_positions, dim / 2], attention factor included, in host memory.
struct RopeTable {
  int rope_dim = 0;
  ops::RopeLayout layout;
  std::vector<float> cos;
  std::vector<float> sin;

  ops::RopeView view() const;
};

// Computes the table for positions [0, num_positions).
RopeTable make_rope_table(const RopeSpec& spec, int64_t num_positions);

}  // namespace eps::arch
