// Every family: checkpoints that are damaged, and options that are not supported, are refused in one line.
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/checkpoint_variant.h"

namespace eps::engine {
namespace {

using test::CheckpointVariant;

// Opens the checkpoint through the public API. The program ends with exit code 2 for errors of these kinds.
void expect_refused(const CheckpointVariant& variant, const std::string& fragment, const std::string& what) {
  try {
    variant.open_engine();
    ADD_FAILURE() << what << " is accepted";
  } catch (const Error& e) {
    EXPECT_TRUE(e.kind() == ErrorKind::kInput || e.kind() == ErrorKind::kUsage) << what << ": " << e.what();
    const std::string text = e.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_NE(text.find(fragment), std::string::npos) << what << ": " << text;
  }
}

// One checkpoint of each family, and of each way to store weights.
constexpr const char* kCheckpoints[] = {"plain",   "deepseek_v3", "deepseek_v3_fp8", "qwen2_moe", "qwen3_moe",
                                        "mixtral", "olmoe",       "glm4_moe",        "gpt_oss",   "gpt_oss_mxfp4",
                                        "dbrx",    "arctic",      "granite_moe"};

class FamilyErrorsTest : public ::testing::TestWithParam<const char*> {
 protected:
  // Layers for multi-token prediction are not read, so what they contain does not matter.
  static bool is_read(const CheckpointVariant& variant, const std::string& name) {
    const int64_t layers = variant.config.value("num_hidden_layers", int64_t{1000});
    return name.find(fmt::format(".layers.{}.", layers)) == std::string::npos;
  }
};
INSTANTIATE_TEST_SUITE_P(Checkpoints, FamilyErrorsTest, ::testing::ValuesIn(kCheckpoints),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(FamilyErrorsTest, TheUnchangedCheckpointLoadsWithoutWarnings) {
  const CheckpointVariant variant(GetParam());
  variant.open_engine();
  const ModelFolder folder = variant.open();
  for (const LoadNote& note : folder.notes) EXPECT_FALSE(note.is_warning) << note.text;
  EXPECT_TRUE(folder.unknown_keys.empty()) << folder.unknown_keys.front();
  EXPECT_TRUE(folder.weights.suspicious.empty()) << folder.weights.suspicious.front();
}

TEST_P(FamilyErrorsTest, AFileThatIsCutShort) {
  CheckpointVariant variant(GetParam());
  variant.cut_bytes = 10;
  expect_refused(variant, "model.safetensors", "a file without its last bytes");
}

TEST_P(FamilyErrorsTest, EachTensorMissing) {
  const CheckpointVariant whole(GetParam());
  for (const auto& [name, tensor] : whole.tensors) {
    if (!is_read(whole, name)) continue;
    CheckpointVariant variant(GetParam());
    variant.tensors.erase(name);
    expect_refused(variant, name, "without " + name);
  }
}

TEST_P(FamilyErrorsTest, EachTensorOfAnotherShape) {
  const CheckpointVariant whole(GetParam());
  for (const auto& [name, tensor] : whole.tensors) {
    if (!is_read(whole, name)) continue;
    CheckpointVariant variant(GetParam());
    test::StoredTensor& changed = variant.tensors[name];
    const size_t row_bytes = changed.bytes.size() / static_cast<size_t>(changed.shape[0]);
    changed.bytes += changed.bytes.substr(0, row_bytes);
    ++changed.shape[0];
    expect_refused(variant, name, "a row more of " + name);
  }
}

struct Option {
  const char* checkpoint;
  const char* key;  // "ffn_config.moe_top_k" for a key of an object
  const char* value;
};

class RefusedOptionTest : public ::testing::TestWithParam<Option> {};
INSTANTIATE_TEST_SUITE_P(
    Options, RefusedOptionTest,
    ::testing::Values(
        Option{"qwen3_moe", "hidden_act", "\"gelu\""}, Option{"qwen3_moe", "num_key_value_heads", "3"},
        Option{"qwen3_moe", "num_experts_per_tok", "9"}, Option{"qwen3_moe", "decoder_sparse_step", "0"},
        Option{"qwen3_moe", "rope_scaling", R"({"type": "longrope", "factor": 2.0})"},
        Option{"qwen3_moe", "rope_scaling", R"({"type": "linear", "factor": 0.0})"},
        Option{"qwen3_moe", "rope_scaling", R"({"type": "llama3", "factor": 2.0, "low_freq_factor": 4.0})"},
        Option{"qwen3_moe", "partial_rotary_factor", "0.5"},
        Option{"qwen3_moe", "quantization_config", R"({"quant_method": "gptq", "bits": 4})"},
        Option{"qwen3_moe", "quantization_config", R"({"quant_method": "fp8"})"},
        Option{"qwen3_moe", "quantization_config", R"({"quant_method": "mxfp4"})"},
        Option{"qwen3_moe", "is_encoder_decoder", "true"}, Option{"qwen2_moe", "hidden_act", "\"relu\""},
        Option{"qwen2_moe", "layer_types", R"(["full_attention", "linear_attention"])"},
        Option{"qwen2_moe", "layer_types", R"(["full_attention"])"},
        Option{"qwen2_moe", "shared_expert_intermediate_size", "0"}, Option{"mixtral", "hidden_act", "\"gelu\""},
        Option{"mixtral", "sliding_window", "0"}, Option{"mixtral", "num_local_experts", "0"},
        Option{"olmoe", "clip_qkv", "-1.0"}, Option{"olmoe", "num_key_value_heads", "3"},
        Option{"deepseek_v3", "scoring_func", "\"softmax\""}, Option{"deepseek_v3", "topk_method", "\"greedy\""},
        Option{"deepseek_v3", "moe_layer_freq", "2"}, Option{"deepseek_v3", "n_group", "3"},
        Option{"deepseek_v3_top1", "n_group", "8"}, Option{"deepseek_v3", "topk_group", "1"},
        Option{"deepseek_v3", "num_key_value_heads", "2"},
        Option{"deepseek_v3_fp8", "quantization_config",
               R"({"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [16, 24]})"},
        Option{"deepseek_v3_fp8", "quantization_config", R"({"quant_method": "fp8", "weight_block_size": [16]})"},
        Option{"glm4_moe", "partial_rotary_factor", "0.05"}, Option{"glm4_moe", "topk_group", "2"},
        Option{"gpt_oss", "rope_scaling", "null"}, Option{"gpt_oss", "swiglu_limit", "0"},
        Option{"gpt_oss", "experts_per_token", "3"}, Option{"gpt_oss", "hidden_act", "\"gelu\""},
        Option{"dbrx", "ffn_config.moe_normalize_expert_weights", "2.0"},
        Option{"dbrx", "ffn_config.ffn_act_fn", R"({"name": "gelu"})"}, Option{"dbrx", "ffn_config.new_key", "1"},
        Option{"dbrx", "attn_config.new_key", "1"}, Option{"dbrx", "attn_config.kv_n_heads", "3"},
        Option{"dbrx", "tie_word_embeddings", "true"}, Option{"arctic", "attention_bias", "true"},
        Option{"arctic", "sliding_window", "16"}, Option{"arctic", "use_residual", "false"},
        Option{"arctic", "quantization", R"({"bits": 8})"}, Option{"arctic", "moe_layer_frequency", "0"},
        Option{"granite_moe", "residual_multiplier", "0"}, Option{"granite_moe", "logits_scaling", "-6.0"},
        Option{"granite_moe", "attention_multiplier", "0.0"}),
    [](const auto& test) {
      std::string name = fmt::format("{}_{}_{}", test.index, test.param.checkpoint, test.param.key);
      std::ranges::replace(name, '.', '_');
      return name;
    });

TEST_P(RefusedOptionTest, NamesTheKey) {
  CheckpointVariant variant(GetParam().checkpoint);
  std::string key = GetParam().key;
  io::Json* object = &variant.config;
  if (const size_t dot = key.find('.'); dot != std::string::npos) {
    object = &variant.config[key.substr(0, dot)];
    key = key.substr(dot + 1);
  }
  (*object)[key] = io::Json::parse(GetParam().value);
  // Some values are refused by the name of the key that they contain.
  const bool is_inner = (*object)[key].is_object() && key != "ffn_act_fn" && key != "quantization";
  expect_refused(variant, is_inner ? key : "\"" + std::string(GetParam().key).substr(0, 400), GetParam().value);
}

}  // namespace
}  // namespace eps::engine
