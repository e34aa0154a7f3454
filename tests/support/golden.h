// The golden checkpoints: tiny models and the logits that Hugging Face transformers computed with them.
// The files are written by tools/make_model_golden.py.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "support/model_ranks.h"

namespace eps::test {

// The checkout: where it was when this was built, or, when programs were carried to another machine, the folder they
// are run in.
inline std::filesystem::path source_dir() {
  return std::filesystem::exists(EPSMOE_SOURCE_DIR) ? std::filesystem::path(EPSMOE_SOURCE_DIR)
                                                    : std::filesystem::current_path();
}

inline std::filesystem::path golden_root() { return source_dir() / "tests/data/golden"; }

inline std::vector<std::string> golden_names() {
  namespace fs = std::filesystem;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(golden_root())) {
    if (fs::exists(entry.path() / "golden.safetensors")) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Golden {
  std::vector<std::vector<int32_t>> ids;
  std::vector<Logits> logits;
};

inline Golden read_golden(const std::string& name, int64_t vocab) {
  const io::SafetensorsFile file = io::SafetensorsFile::open((golden_root() / name / "golden.safetensors").string());
  Golden out;
  for (int s = 0; file.find("ids" + std::to_string(s)) != nullptr; ++s) {
    const io::OwnedTensor ids_tensor = file.read(*file.find("ids" + std::to_string(s)));
    const TensorView ids = ids_tensor.view;
    out.ids.emplace_back();
    for (int64_t i = 0; i < ids.numel(); ++i) {
      out.ids.back().push_back(ids.dtype() == DType::kI64 ? static_cast<int32_t>(ids.as<const int64_t>()[i])
                                                          : ids.as<const int32_t>()[i]);
    }
    const io::OwnedTensor logits = file.read(*file.find("logits" + std::to_string(s)));
    const float* p = logits.view.as<const float>();
    out.logits.emplace_back();
    for (int64_t i = 0; i < ids.numel(); ++i, p += vocab) out.logits.back().emplace_back(p, p + vocab);
  }
  return out;
}

// Golden folders have no tokenizer: config and weights are read directly.
inline engine::ModelFolder open_golden(const std::string& name) {
  engine::ModelFolder folder;
  folder.checkpoint = std::make_unique<io::Checkpoint>(io::Checkpoint::open((golden_root() / name).string()));
  const io::JsonObject config(folder.checkpoint->config(), folder.checkpoint->config_path());
  folder.family = &arch::find_family(config);
  folder.spec = folder.family->read_config(config);
  return folder;
}

// The largest error of any logit, relative to the largest logit; NaN if there is one.
inline double relative_error(const std::vector<Logits>& got, const std::vector<Logits>& want) {
  double worst = 0;
  double top = 0;
  EXPECT_EQ(got.size(), want.size());
  for (size_t s = 0; s < want.size(); ++s) {
    for (size_t t = 0; t < want[s].size(); ++t) {
      EXPECT_EQ(got[s][t].size(), want[s][t].size());
      for (size_t v = 0; v < want[s][t].size(); ++v) {
        const double error = std::abs(static_cast<double>(got[s][t][v]) - want[s][t][v]);
        if (std::isnan(error)) return error;
        worst = std::max(worst, error);
        top = std::max(top, std::abs(static_cast<double>(want[s][t][v])));
      }
    }
  }
  return worst / top;
}

// Both sides round f32 sums in their own order. The error of one layer's block relative to the residual stream is about
// sqrt(K)·u (K the longest sum, u = 2^-24), and the blocks' errors add up; the factor 32 covers the norms, the softmax
// and the amplification through them. For these models that is 1e-4 of the largest logit, the limit that this project
// sets.
inline double golden_tolerance(const arch::ModelSpec& spec) {
  const auto longest = static_cast<double>(
      std::max({spec.hidden, spec.moe.inner, int64_t{spec.attention.num_heads()} * spec.attention.v_dim()}));
  const double blocks = 2.0 * spec.num_layers() + 1;
  return std::min(1e-4, 32 * blocks * std::sqrt(longest) * 0x1p-24);
}

}  // namespace eps::test
