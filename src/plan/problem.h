// What to plan: one MoE layer for one batch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moe/placement.h"
#include "tensor/dtype.h"

namespace eps {

struct MoeProblem {
  ExpertPlacement placement;
  int top_k = 0;
  std::vector<int64_t> load;             // [num_experts] rows of each expert over all ranks
  std::vector<int64_t> tokens_per_rank;  // [num_ranks]
  DType wire_dtype = DType::kF32;        // of dispatched rows; partial sums always return as f32
};

// How many stages to cut the experts into: the value of --eps-pipeline.
struct PipelineOption {
  enum class Mode : uint8_t { kOff, kAuto, kFixed, kAll };
  Mode mode = Mode::kAuto;
  int num_stages = 1;  // kFixed only
};

// "off", "auto", "all" or a positive number. Errors: kUsage
PipelineOption parse_pipeline_option(std::string_view text);
std::string to_string(const PipelineOption& option);

}  // namespace eps
