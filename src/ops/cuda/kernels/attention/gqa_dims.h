// The dimensions of grouped-query attention as kernel parameters. The fields are those of eps::ops::GqaParams.
#pragma once

namespace eps::cuda {

struct GqaDims {
  int num_heads = 0;
  int num_kv_heads = 0;  // divides num_heads
  int head_dim = 0;
  float softmax_scale = 0.0F;

  constexpr int group() const { return num_heads / num_kv_heads; }
  constexpr int kv_width() const { return num_kv_heads * head_dim; }
};

}  // namespace eps::cuda
