// Checkpoints in the formats that other programs write, made from the golden ones, with their logits, or the demo
// model.
#include "engine/model_folder.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "epsmoe/engine.h"
#include "io/safetensors_files.h"
#include "support/checkpoint_variant.h"
#include "support/golden.h"

namespace eps::engine {
namespace {

namespace fs = std::filesystem;
using test::expect_input_error;
using test::file_of;
using test::floats;
using test::source_dir;
using test::StoredTensor;
using test::StoredTensors;
using test::TempDir;
using Variant = test::CheckpointVariant;

std::vector<std::string> texts(const ModelFolder& folder, bool warnings) {
  std::vector<std::string> out;
  for (const LoadNote& note : folder.notes) {
    if (note.is_warning == warnings) out.push_back(note.text);
  }
  return out;
}

bool any_contains(const std::vector<std::string>& texts, const std::string& fragment) {
  return std::ranges::any_of(texts, [&](const std::string& text) { return text.find(fragment) != std::string::npos; });
}

TEST(ModelFolder, UnchangedVariantsAreTheGoldenModels) {
  const Variant plain;
  EXPECT_TRUE(plain.has_golden_logits());
  EXPECT_TRUE(texts(plain.open(), true).empty());
  EXPECT_TRUE(plain.open().unknown_keys.empty());
}

// The golden checkpoint of this name uses YaRN, in the format of rope_scaling.
TEST(ModelFolder, RopeScalingReplacesRopeParametersInEverySpelling) {
  for (const char* golden : {"yarn_old_spelling", "yarn_new_spelling"}) {
    const Variant unchanged(golden);
    const io::Json yarn = unchanged.config.contains("rope_scaling") && unchanged.config["rope_scaling"].is_object()
                              ? unchanged.config["rope_scaling"]
                              : unchanged.config["rope_parameters"];
    ASSERT_TRUE(yarn.is_object());
    const double theta = yarn.value("rope_theta", unchanged.config.value("rope_theta", 10000.0));
    const io::Json plain = {{"rope_type", "default"}, {"rope_theta", theta}};
    const auto logits = [&](const io::Json& scaling, const io::Json& parameters, const char* type_key) {
      Variant v(golden);
      v.config["rope_theta"] = theta;
      const auto spelled = [&](io::Json object) {
        for (const char* key : {"type", "rope_type"}) {
          if (!object.is_object() || !object.contains(key)) continue;
          const io::Json type = object[key];
          object.erase(key);
          object[type_key] = type;
          break;
        }
        return object;
      };
      v.config["rope_scaling"] = spelled(scaling);
      v.config["rope_parameters"] = spelled(parameters);
      return v.has_golden_logits();
    };
    for (const char* type_key : {"type", "rope_type"}) {
      SCOPED_TRACE(std::string(golden) + " " + type_key);
      EXPECT_TRUE(logits(yarn, plain, type_key)) << "rope_scaling has precedence";
      EXPECT_TRUE(logits(yarn, nullptr, type_key));
      EXPECT_TRUE(logits(nullptr, yarn, type_key));
      EXPECT_TRUE(logits(io::Json::object(), yarn, type_key)) << "an empty object counts as missing";
      EXPECT_FALSE(logits(plain, yarn, type_key)) << "rope_scaling has precedence with its default values, too";
    }
  }
  // A theta in rope_parameters is ignored as well, with a warning.
  Variant theta;
  theta.config.erase("rope_theta");
  theta.config["rope_scaling"] = {{"type", "default"}};
  theta.config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 123.0}};
  EXPECT_EQ(theta.open().spec.attention.rope.theta, 10000.0);
  EXPECT_TRUE(any_contains(texts(theta.open(), true), "whose rope_theta = 123 has no effect"));
}

TEST(ModelFolder, TheTopLevelContextBeforeYarnHasPrecedence) {
  Variant v;
  v.config["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 8}};
  v.config["rope_parameters"] = nullptr;
  EXPECT_EQ(v.open().spec.attention.rope.yarn()->original_max_positions, 8.0);
  v.config["original_max_position_embeddings"] = 16;
  EXPECT_EQ(v.open().spec.attention.rope.yarn()->original_max_positions, 16.0);
}

TEST(ModelFolder, AStoredOutputMatrixBesideTiedEmbeddingsIsUsedWhenItDiffers) {
  Variant differs;
  ASSERT_FALSE(differs.config.value("tie_word_embeddings", false));
  differs.config["tie_word_embeddings"] = true;
  EXPECT_TRUE(differs.has_golden_logits());
  EXPECT_EQ(texts(differs.open(), true).size(), 1U);
  EXPECT_TRUE(
      any_contains(texts(differs.open(), true), "\"lm_head.weight\" differs from \"model.embed_tokens.weight\""));

  Variant equal;
  equal.config["tie_word_embeddings"] = true;
  equal.tensors["lm_head.weight"] = equal.tensors["model.embed_tokens.weight"];
  EXPECT_TRUE(equal.open().spec.tie_embeddings);
  EXPECT_TRUE(equal.open().notes.empty()) << equal.open().notes.front().text;
  // Equal values in another dtype are equal.
  Variant narrow;
  narrow.config["tie_word_embeddings"] = true;
  StoredTensor& embedding = narrow.tensors["model.embed_tokens.weight"];
  StoredTensor half{"BF16", embedding.shape, {}};
  for (size_t i = 0; i < embedding.bytes.size(); i += 4) {
    embedding.bytes[i] = embedding.bytes[i + 1] = '\0';  // rounded to what bf16 holds
    half.bytes += embedding.bytes.substr(i + 2, 2);
  }
  narrow.tensors["lm_head.weight"] = half;
  EXPECT_TRUE(narrow.open().spec.tie_embeddings);
  // Either one of two tied weights may be stored.
  equal.tensors.erase("model.embed_tokens.weight");
  Variant other = Variant();
  other.config["tie_word_embeddings"] = true;
  other.tensors.erase("lm_head.weight");
  const test::Golden golden = test::read_golden("plain", equal.open().spec.vocab_size);
  const ModelFolder only_head = equal.open();
  const ModelFolder only_embedding = other.open();
  test::ModelRanks a(only_head, {"cpu", "f32", 1, "off", 1});
  test::ModelRanks b(only_embedding, {"cpu", "f32", 1, "off", 1});
  EXPECT_EQ(a.run(golden.ids, {0}), b.run(golden.ids, {0}));
}

TEST(ModelFolder, WeightsMayLieAtAnyOffset) {
  for (size_t padding = 0; padding < 5; ++padding) {
    Variant v;
    v.padding = padding;
    EXPECT_TRUE(v.has_golden_logits()) << padding;
  }
}

TEST(ModelFolder, SkipsWhatTheForwardPassDoesNotUse) {
  Variant v;
  const std::string layer = "model.layers." + std::to_string(v.config["num_hidden_layers"].get<int>()) + ".";
  v.config["num_nextn_predict_layers"] = 1;
  v.tensors[layer + "input_layernorm.weight"] = floats({3}, 1.0F);
  v.tensors[layer + "embed_tokens.weight"] = floats({2, 3}, 1.0F);
  v.tensors[layer + "shared_head.norm.weight"] = {"F8_E4M3", {5}, "12345"};
  v.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = floats({4}, 1.0F);
  v.tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = {"F64", {1}, "12345678"};
  v.tensors["model.layers.0.self_attn.rotary_emb.cos_cached"] = floats({1, 1, 1, 1, 2}, 1.0F);
  v.tensors["model.position_ids"] = {"I64", {1, 2}, std::string(16, 'x')};
  v.tensors["model.layers.0.self_attn.causal"] = {"BOOL", {2, 2}, "abcd"};
  v.tensors["model.layers.0.mlp.tokens_seen"] = {"I8", {3}, "abc"};
  v.tensors["model.step"] = {"U16", {}, "ab"};
  v.tensors["vision_tower.patch.weight"] = floats({2}, 1.0F);
  v.tensors["mtp.norm.weight"] = floats({2}, 1.0F);
  EXPECT_TRUE(v.has_golden_logits());
  const ModelFolder folder = v.open();
  EXPECT_EQ(folder.weights.skipped.size(), 12U);
  EXPECT_TRUE(folder.weights.suspicious.empty());
  EXPECT_TRUE(folder.weights.misplaced.empty());
  EXPECT_TRUE(texts(folder, true).empty());
  EXPECT_TRUE(any_contains(texts(folder, false), layer + "* (3)"));
  EXPECT_TRUE(any_contains(texts(folder, false), "model.layers.*.self_attn.rotary_emb.inv_freq (2)"));
  uint64_t used = 0;
  for (const std::string& name : model::weight_names(folder.spec, *folder.family)) {
    used += folder.checkpoint->info(folder.names->stored(name)).num_bytes();
  }
  EXPECT_EQ(folder.weights.used_bytes, used);
}

TEST(ModelFolder, WarnsAboutWeightsThatResembleTheModels) {
  Variant v;
  const std::string layer = "model.layers." + std::to_string(v.config["num_hidden_layers"].get<int>()) + ".";
  v.tensors[layer + "input_layernorm.weight"] = floats({3}, 1.0F);          // not declared
  v.tensors["model.layers.0.self_attn.q_norm.weight"] = floats({3}, 1.0F);  // of another family
  v.tensors["model.layers.1.mlp.gate.e_score_correction_bias"] = floats({3}, 1.0F);
  v.tensors["model.model.norm.weight"] = floats({3}, 1.0F);  // another prefix
  EXPECT_TRUE(v.has_golden_logits());
  const ModelFolder folder = v.open();
  EXPECT_EQ(folder.weights.suspicious.size(), 4U);
  ASSERT_EQ(texts(folder, true).size(), 1U);
  for (const char* fragment : {"q_norm.weight", "e_score_correction_bias", "model.model.norm.weight"}) {
    EXPECT_TRUE(any_contains(texts(folder, true), fragment)) << fragment;
  }
  EXPECT_NO_THROW(v.open_engine());
}

TEST(ModelFolder, RefusesWeightsOfModulesThatTheConfigurationTurnsOff) {
  for (const char* name :
       {"model.layers.0.self_attn.kv_a_proj_with_mqa.bias", "model.layers.1.mlp.experts.999.up_proj.weight",
        "model.norm.bias", "model.layers.0.mlp.experts.0.up_proj.bias"}) {
    Variant v;
    v.tensors[name] = floats({2}, 1.0F);
    expect_input_error([&] { v.open_engine(); }, {name, "a weight that the model of config.json does not have"});
    EXPECT_EQ(v.open().weights.misplaced, std::vector<std::string>{name}) << "inspect has to open it";
  }
}

TEST(ModelFolder, ChecksUsedWeightsWhenTheyAreNeeded) {
  Variant shape;
  shape.tensors["model.norm.weight"].shape = {2, shape.tensors["model.norm.weight"].shape[0] / 2};
  EXPECT_NO_THROW(shape.open());
  expect_input_error([&] { shape.open_engine(); }, {"tensor \"model.norm.weight\" has the wrong shape"});
  Variant dtype;
  dtype.tensors["model.norm.weight"].dtype = "U32";
  EXPECT_NO_THROW(dtype.open());
  expect_input_error([&] { dtype.open_engine(); }, {"tensor \"model.norm.weight\"", "unsupported dtype", "U32"});
}

TEST(ModelFolder, ReadsWeightsUnderAnyPrefix) {
  struct Case {
    std::string from, to, lm_head;
  };
  for (const Case& c : {Case{"model.", "", "lm_head.weight"}, Case{"model.", "model.model.", "lm_head.weight"},
                        Case{"model.", "language_model.model.", "language_model.lm_head.weight"},
                        Case{"model.", "model.language_model.", "model.lm_head.weight"}}) {
    SCOPED_TRACE(c.to);
    Variant v;
    StoredTensors renamed;
    for (auto& [name, tensor] : v.tensors) {
      renamed[name == "lm_head.weight" ? c.lm_head : c.to + name.substr(c.from.size())] = tensor;
    }
    v.tensors = renamed;
    v.tensors[c.to + "layers.0.self_attn.rotary_emb.inv_freq"] = floats({4}, 1.0F);
    v.tensors["model.layers.7.embed_tokens.weight"] = floats({4}, 1.0F);
    v.config["num_nextn_predict_layers"] = 8;
    EXPECT_TRUE(v.has_golden_logits());
    EXPECT_TRUE(v.open().weights.misplaced.empty());
    EXPECT_TRUE(any_contains(texts(v.open(), false), "weights are named"));
  }
}

TEST(ModelFolder, ReadsConfigurationsAsPythonWritesThem) {
  Variant v;
  std::string text = v.config.dump();
  v.config_text = "{\"time_step_limit\": [0.0, Infinity], \"lowest\": -Infinity, \"none\": NaN, " + text.substr(1);
  EXPECT_TRUE(v.has_golden_logits());
  EXPECT_EQ(v.open().unknown_keys,
            (std::vector<std::string>{"config.json: lowest", "config.json: none", "config.json: time_step_limit"}));
  for (const char* literal : {"NaN", "Infinity", "-Infinity"}) {
    v.config.erase("rms_norm_eps");
    v.config_text = std::string("{\"rms_norm_eps\": ") + literal + ", " + v.config.dump().substr(1);
    expect_input_error([&] { v.open(); }, {"key \"rms_norm_eps\": got " + std::string(literal)});
  }
}

// The demo model with other optional files.
class Demo {
 public:
  Demo() {
    for (const auto& entry : fs::directory_iterator(source_dir() / "models/austen-moe")) {
      fs::create_symlink(entry.path(), dir.file(entry.path().filename().string()));
    }
  }
  void write(const std::string& name, const std::string& text) const {
    fs::remove(dir.file(name));
    dir.write(name, text);
  }
  io::Json read(const std::string& name) const { return io::read_json_file(dir.file(name)); }
  ModelFolder open() const { return open_model_folder(dir.path(), false); }

  TempDir dir;
};

TEST(ModelFolder, OptionalFilesMayBeAbsentButNotUnreadable) {
  for (const char* name : {"generation_config.json", "tokenizer_config.json", "tokenizer.json"}) {
    SCOPED_TRACE(name);
    const Demo demo;
    fs::remove(demo.dir.file(name));
    EXPECT_NO_THROW(demo.open());
    fs::create_symlink(demo.dir.file("gone"), demo.dir.file(name));
    expect_input_error([&] { demo.open(); }, {name, "the link points to a file that does not exist"});
    expect_input_error([&] { open_model_folder(demo.dir.path(), true); }, {name, "the link points to"});
    fs::remove(demo.dir.file(name));
    fs::create_directory(demo.dir.file(name));
    expect_input_error([&] { demo.open(); }, {name, "got a directory"});
    if (::geteuid() == 0) continue;  // root may read everything
    fs::remove(demo.dir.file(name));
    demo.dir.write(name, "{}");
    ASSERT_EQ(::chmod(demo.dir.file(name).c_str(), 0), 0);
    expect_input_error([&] { demo.open(); }, {name, "Permission denied"});
  }
}

TEST(ModelFolder, ATokenizerMayHaveTokensBeyondTheVocabulary) {
  const Demo demo;
  io::Json tokenizer = demo.read("tokenizer.json");
  tokenizer["added_tokens"].push_back({{"id", 4096},
                                       {"content", "[PAD]"},
                                       {"single_word", false},
                                       {"lstrip", false},
                                       {"rstrip", false},
                                       {"normalized", false},
                                       {"special", true}});
  demo.write("tokenizer.json", tokenizer.dump());
  const ModelFolder folder = demo.open();
  EXPECT_EQ(encode_prompt(folder, "It is a truth", 512), encode_prompt(Demo().open(), "It is a truth", 512));
  EXPECT_TRUE(any_contains(texts(folder, false), "has 4097 tokens, but the model only 4096"));
  const std::vector<std::string> wanted = {"\"[PAD]\", token 4096", "below vocab_size = 4096"};
  expect_input_error([&] { encode_prompt(folder, "It is [PAD]", 512); }, wanted);
  expect_input_error([&] { encode_text(folder, "It is [PAD]", {}); }, wanted);
}

TEST(ModelFolder, ConfigurationsNameTheirUnknownKeys) {
  const Demo demo;
  for (const char* name : {"config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"}) {
    io::Json json = demo.read(name);
    json["frobnicate"] = 1;
    demo.write(name, json.dump());
  }
  io::Json config = demo.read("config.json");
  config["rope_parameters"]["wobble"] = 2;
  demo.write("config.json", config.dump());
  const ModelFolder folder = demo.open();
  EXPECT_EQ(folder.unknown_keys,
            (std::vector<std::string>{"config.json: frobnicate", "config.json: rope_parameters.wobble",
                                      "generation_config.json: frobnicate", "tokenizer.json: frobnicate",
                                      "tokenizer_config.json: frobnicate"}));
  EXPECT_EQ(texts(folder, false).size(), 5U);
  EXPECT_TRUE(texts(folder, true).empty());
  EXPECT_TRUE(Demo().open().notes.empty()) << "all keys of the bundled model are known";
}

TEST(ModelFolder, GenerationSettingsInConfigApplyWithoutAGenerationConfig) {
  const Demo demo;
  io::Json config = demo.read("config.json");
  config["do_sample"] = true;
  config["temperature"] = 0.25;
  demo.write("config.json", config.dump());
  EXPECT_EQ(demo.open().generation.sampling.temperature, 0.8);
  fs::remove(demo.dir.file("generation_config.json"));
  EXPECT_EQ(demo.open().generation.sampling.temperature, 0.25);
  EXPECT_TRUE(demo.open().generation.do_sample);
}

TEST(ModelFolder, AnOpenEngineDoesNotDependOnItsFiles) {
  const TempDir dir;
  fs::copy(source_dir() / "models/austen-moe", dir.path());
  EngineOptions options;
  options.model = dir.path();
  options.threads = 1;
  const auto engine = Engine::open(options);
  GenerateRequest request;
  request.prompt = "It is a truth";
  request.max_tokens = 8;
  request.temperature = 0.0;
  const auto generate = [&] { return engine->generate(request, [](std::string_view) { return true; }).ids; };
  const auto want = generate();
  for (const auto& entry : fs::directory_iterator(dir.path())) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string zeros(fs::file_size(entry.path()), '\0');
    std::fstream(entry.path(), std::ios::binary | std::ios::in | std::ios::out)
        .write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
  }
  EXPECT_EQ(generate(), want) << "overwritten in place";
  for (const auto& entry : fs::directory_iterator(dir.path())) fs::resize_file(entry.path(), 0);
  EXPECT_EQ(generate(), want) << "cut short";
}

TEST(ModelFolder, AFileThatChangesWhileItLoadsIsAnError) {
  const TempDir dir;
  fs::copy(source_dir() / "models/austen-moe", dir.path());
  EngineOptions options;
  options.model = dir.path();
  options.threads = 1;
  options.on_load_progress = [&dir](uint64_t, uint64_t) {
    for (const auto& entry : fs::directory_iterator(dir.path())) fs::resize_file(entry.path(), 4096);
  };
  try {
    Engine::open(options);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource) << e.what();
    EXPECT_NE(std::string(e.what()).find(".safetensors: the file"), std::string::npos) << e.what();
  }
}

TEST(ModelFolder, SizesWhoseProductsAreAbsurdAreRefused) {
  const Demo demo;
  const io::Json config = demo.read("config.json");
  const auto with = [&](const std::vector<std::pair<const char*, int64_t>>& changes) {
    return [&demo, &config, changes] {
      io::Json changed = config;
      for (const auto& [key, value] : changes) changed[key] = value;
      demo.write("config.json", changed.dump());
      open_model_folder(demo.dir.path(), true);
    };
  };
  constexpr int64_t kMax = 1 << 24;
  expect_input_error(with({{"num_attention_heads", kMax}, {"num_key_value_heads", kMax}, {"v_head_dim", kMax}}),
                     {"config.json", "the sizes of attention are too large together", "num_attention_heads"});
  expect_input_error(with({{"kv_lora_rank", kMax}, {"max_position_embeddings", kMax}, {"num_hidden_layers", 4096}}),
                     {"config.json", "are too large together"});
  expect_input_error(with({{"hidden_size", kMax}, {"moe_intermediate_size", kMax}}), {"the sizes of the experts"});
  expect_input_error(with({{"hidden_size", kMax}, {"intermediate_size", kMax}, {"first_k_dense_replace", 7}}),
                     {"the sizes of the dense layers"});
  expect_input_error(with({{"n_shared_experts", 1024}, {"moe_intermediate_size", kMax}}), {"the shared experts"});
  expect_input_error(with({{"vocab_size", kMax + 1}}), {"key \"vocab_size\""});
  EXPECT_NO_THROW(with({{"vocab_size", kMax}})());
}

}  // namespace
}  // namespace eps::engine
