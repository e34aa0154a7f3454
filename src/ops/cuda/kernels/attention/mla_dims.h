// The dimensions of multi-head latent attention as kernel parameters. The fields are those of eps::ops::MlaParams.
#pragma once

namespace eps::cuda {

struct MlaDims {
  int num_heads = 0;
  int nope_dim = 0;
  int rope_dim = 0;
  int v_dim = 0;
  int kv_lora_rank = 0;
  float softmax_scale = 0.0F;

  constexpr int q_dim() const { return nope_dim + rope_dim; }
};

}  // namespace eps::cuda
