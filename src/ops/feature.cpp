#include "ops/feature.h"

namespace eps::ops {

std::string_view to_string(Feature feature) {
  switch (feature) {
    case Feature::kGroupedAttention: return "grouped-query attention";
    case Feature::kRopeLayout: return "this layout of rotated pairs";
    case Feature::kLayerNorm: return "layer normalisation";
    case Feature::kClamp: return "clipped queries, keys and values";
    case Feature::kSigmoidRouter: return "sigmoid routers";
    case Feature::kRouterBias: return "routers with a bias";
    case Feature::kExpertBias: return "experts with biases";
    case Feature::kClampedSwiglu: return "the clamped SwiGLU activation";
    case Feature::kSharedGate: return "gated shared experts";
    case Feature::kDenseResidual: return "a dense FFN beside the experts";
  }
  return "";
}

}  // namespace eps::ops
