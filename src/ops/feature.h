// Operations that not every op set has. A model that needs one is refused by name before its weights are loaded.
#pragma once

#include <cstdint>
#include <string_view>

namespace eps::ops {

enum class Feature : uint8_t {
  kGroupedAttention,  // store_keys, gqa_attention
  kRopeLayout,        // rotation in other layouts than the latent attention of DeepSeek-V2 has
  kLayerNorm,
  kClamp,
  kSigmoidRouter,  // sigmoid scores, correction biases, groups ranked by their two best experts
  kRouterBias,
  kExpertBias,
  kClampedSwiglu,
  kSharedGate,
  kDenseResidual,  // a dense FFN beside the experts
};

// "grouped-query attention"
std::string_view to_string(Feature feature);

}  // namespace eps::ops
