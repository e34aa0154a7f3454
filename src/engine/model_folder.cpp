#include "engine/model_folder.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "arch/presets.h"
#include "base/error.h"
#include "io/file.h"
#include "model/checkpoint_keys.h"
#include "tensor/widen.h"

namespace eps::engine {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokenizerName = "tokenizer.json";
constexpr const char* kTokenizerConfigName = "tokenizer_config.json";
constexpr const char* kGenerationConfigName = "generation_config.json";

void warn(ModelFolder& folder, std::string text) {
  folder.notes.push_back({.text = std::move(text), .is_warning = true});
}

void note(ModelFolder& folder, std::string text) {
  folder.notes.push_back({.text = std::move(text), .is_warning = false});
}

void check_file_keys(ModelFolder& folder, model::CheckpointFile file, const io::JsonObject& object,
                     std::span<const arch::KnownKey> own = {}) {
  model::KeyReport report = model::check_keys(file, object, own);
  for (std::string& warning : report.warnings) warn(folder, std::move(warning));
  if (report.unknown.empty()) return;
  const std::string name = fs::path(object.where()).filename().string();
  std::string keys;
  for (const std::string& key : report.unknown) {
    folder.unknown_keys.push_back(fmt::format("{}: {}", name, key));
    keys += fmt::format("{}\"{}\"", keys.empty() ? "" : ", ", printable(key, 80));
  }
  note(folder, fmt::format("{}: unknown key{} {}", object.where(), report.unknown.size() == 1 ? "" : "s", keys));
}

// Reports that rope_scaling replaces rope_parameters as a whole if a config.json has both.
void warn_about_rope(ModelFolder& folder, const io::JsonObject& config) {
  const auto scaling = config.optional_child("rope_scaling");
  const auto parameters = config.optional_child("rope_parameters");
  if (!scaling || !parameters || scaling->value().empty()) return;
  const auto theta = parameters->optional<double>("rope_theta");
  if (theta && *theta != folder.spec.attention.rope.theta) {
    warn(folder, fmt::format("{}: rope_scaling replaces rope_parameters, whose rope_theta = {} has no effect",
                             config.where(), *theta));
  } else {
    note(folder, fmt::format("{}: rope_scaling replaces rope_parameters", config.where()));
  }
}

void read_spec(ModelFolder& folder, const io::Json& config, const std::string& where) {
  const io::JsonObject object(config, where);
  folder.family = &arch::find_family(object);
  folder.spec = folder.family->read_config(object);
  check_file_keys(folder, model::CheckpointFile::kConfig, object, folder.family->keys);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (const auto rope = object.optional_child(key)) check_file_keys(folder, model::CheckpointFile::kRope, *rope);
  }
  warn_about_rope(folder, object);
}

void open_tokenizer(ModelFolder& folder, const std::string& dir) {
  const std::string path = io::join_path(dir, kTokenizerName);
  const io::Json json = io::read_json_file(path);
  const io::JsonObject object(json, path);
  folder.tokenizer = io::Tokenizer::from_object(object);
  check_file_keys(folder, model::CheckpointFile::kTokenizer, object);
  if (folder.tokenizer->vocab_size() > folder.spec.vocab_size) {
    note(folder, fmt::format("{}: has {} tokens, but the model only {}; texts that contain others are refused", path,
                             folder.tokenizer->vocab_size(), folder.spec.vocab_size));
  }
  const std::string config_path = io::join_path(dir, kTokenizerConfigName);
  if (!io::file_exists(config_path)) return;
  const io::Json config = io::read_json_file(config_path, io::kPythonJson);
  const io::JsonObject settings(config, config_path);
  check_file_keys(folder, model::CheckpointFile::kTokenizerConfig, settings);
  folder.add_bos = settings.get_or<bool>("add_bos_token", false);
}

// Without a generation_config.json, the settings are read from config.json, where old versions of transformers wrote
// them.
void open_generation_config(ModelFolder& folder, const std::string& dir, const io::Json& config) {
  const std::string path = io::join_path(dir, kGenerationConfigName);
  if (!io::file_exists(path)) {
    folder.generation = io::parse_generation_config(io::JsonObject(config, io::join_path(dir, "config.json")));
    folder.generation.path = io::join_path(dir, "config.json");
    return;
  }
  const io::Json json = io::read_json_file(path, io::kPythonJson);
  const io::JsonObject object(json, path);
  folder.generation = io::parse_generation_config(object);
  folder.generation.path = path;
  check_file_keys(folder, model::CheckpointFile::kGenerationConfig, object);
}

// Whether two stored weights have the same values, even if their dtypes differ. Reads them in pieces and stops at the
// first difference.
bool are_equal(const io::Checkpoint& checkpoint, const std::string& a, const std::string& b, const Shape& shape) {
  const DType type_a = checkpoint.type(a, shape).dtype;
  const DType type_b = checkpoint.type(b, shape).dtype;
  constexpr int64_t kPiece = int64_t{1} << 20;  // values: a few megabytes
  Buffer bytes_a;
  Buffer bytes_b;
  std::vector<float> values_a;
  std::vector<float> values_b;
  for (int64_t begin = 0; begin < shape.numel(); begin += kPiece) {
    const Shape piece{std::min(kPiece, shape.numel() - begin)};
    const MutableTensorView view_a = bytes_a.view(type_a, piece);
    const MutableTensorView view_b = bytes_b.view(type_b, piece);
    const auto read = [&](const std::string& name, const MutableTensorView& view) {
      checkpoint.file(name).read_bytes(checkpoint.info(name), static_cast<uint64_t>(begin) * size_of(view.dtype()),
                                       {static_cast<std::byte*>(view.data()), view.num_bytes()});
    };
    read(a, view_a);
    read(b, view_b);
    if (type_a == type_b) {
      if (std::memcmp(view_a.data(), view_b.data(), view_a.num_bytes()) != 0) return false;
      continue;
    }
    values_a.resize(static_cast<size_t>(piece.numel()));
    values_b.resize(values_a.size());
    widen_to_f32(view_a, values_a.data());
    widen_to_f32(view_b, values_b.data());
    if (values_a != values_b) return false;
  }
  return true;
}

// A tied checkpoint that stores an output matrix different from its embedding is treated as not tied, as in
// transformers 5.
void untie_if_different(ModelFolder& folder) {
  if (!folder.spec.tie_embeddings) return;
  const arch::GlobalNames globals = folder.family->global_names();
  const std::string embedding = folder.names->stored(globals.embedding);
  const std::string lm_head = folder.names->stored(globals.lm_head);
  if (!folder.checkpoint->has(lm_head) || !folder.checkpoint->has(embedding) || lm_head == embedding) return;
  if (are_equal(*folder.checkpoint, embedding, lm_head, {folder.spec.vocab_size, folder.spec.hidden})) return;
  folder.spec.tie_embeddings = false;
  warn(folder, fmt::format("{}: tie_word_embeddings is true, but \"{}\" differs from \"{}\": the stored matrix is used",
                           folder.checkpoint->config_path(), lm_head, embedding));
}

void check_weights(ModelFolder& folder) {
  const io::Checkpoint& checkpoint = *folder.checkpoint;
  for (const std::string& text : checkpoint.notes()) note(folder, fmt::format("{}: {}", checkpoint.dir(), text));
  folder.names.emplace(folder.spec, *folder.family, checkpoint);
  if (folder.names->prefix() != folder.names->family_prefix()) {
    note(folder, fmt::format("{}: weights are named \"{}…\" instead of \"{}…\"", checkpoint.dir(),
                             folder.names->prefix(), folder.names->family_prefix()));
  }
  untie_if_different(folder);
  folder.weights = model::take_census(folder.spec, *folder.family, checkpoint, *folder.names);
  const model::WeightCensus& w = folder.weights;
  if (!w.suspicious.empty()) {
    warn(folder, fmt::format("{}: weights that this model does not use: {}", checkpoint.dir(),
                             model::summarize(w, w.suspicious)));
  }
  if (!w.skipped.empty()) {
    note(folder, fmt::format("{}: skipped weights that the forward pass does not use: {}", checkpoint.dir(),
                             model::summarize(w, w.skipped)));
  }
}

}  // namespace

bool is_model_file(std::string_view name) {
  return io::is_checkpoint_file(name) || name == kTokenizerName || name == kTokenizerConfigName ||
         name == kGenerationConfigName;
}

bool is_preset(const std::string& model) {
  const bool known = std::any_of(arch::presets().begin(), arch::presets().end(),
                                 [&](const arch::Preset& p) { return p.name == model; });
  return known && !io::file_exists(model);
}

ModelFolder open_model_folder(const std::string& model, bool dummy) {
  ModelFolder folder;
  if (model.empty()) {
    fail(ErrorKind::kUsage, "model",
         {.what = "no model named",
          .got = "",
          .wanted = "a folder, or with `dummy_weights` a preset: " + arch::preset_names(),
          .hint = "`model` models/austen-moe"});
  }
  if (is_preset(model)) {
    if (!dummy) {
      fail(ErrorKind::kUsage, "model",
           {.what = "a preset has no weights", .got = model, .wanted = "a folder", .hint = "`dummy_weights`"});
    }
    folder.spec = arch::preset_spec(model);
    folder.family = &arch::find_preset_family(model);
    return folder;
  }
  if (!io::file_exists(model)) {
    fail(ErrorKind::kInput, model,
         {.what = "no such model folder",
          .got = "",
          .wanted = "",
          .hint = "a folder with config.json and safetensors files, or a preset: " + arch::preset_names()});
  }
  if (dummy) {
    const std::string path = io::join_path(model, "config.json");
    const io::Json config = io::read_json_file(path, io::kPythonJson);
    read_spec(folder, config, path);
    open_generation_config(folder, model, config);
  } else {
    folder.checkpoint = std::make_unique<io::Checkpoint>(io::Checkpoint::open(model));
    read_spec(folder, folder.checkpoint->config(), folder.checkpoint->config_path());
    open_generation_config(folder, model, folder.checkpoint->config());
    check_weights(folder);
  }
  if (io::file_exists(io::join_path(model, kTokenizerName))) open_tokenizer(folder, model);
  return folder;
}

DType stored_dtype(const ModelFolder& folder) {
  DType most = DType::kBF16;
  uint64_t bytes = 0;
  if (!folder.checkpoint) return most;
  for (const auto& [name, totals] : folder.checkpoint->dtype_totals()) {
    const std::optional<DType> dtype = parse_dtype(name);
    const bool is_weight = dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
    if (!is_weight || totals.num_bytes <= bytes) continue;
    most = *dtype;
    bytes = totals.num_bytes;
  }
  return most;
}

namespace {

// Requires that all tokens of a text have a row in the embedding.
void require_rows(const ModelFolder& folder, std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (id < folder.spec.vocab_size) continue;
    fail(ErrorKind::kInput, "text to encode",
         {.what = "a token of the tokenizer that is not in the model's vocabulary",
          .got = fmt::format("\"{}\", token {}", folder.tokenizer->id_to_token(id), id),
          .wanted = fmt::format("tokens below vocab_size = {}", folder.spec.vocab_size),
          .hint = "a text without it, or the tokenizer.json that belongs to this checkpoint"});
  }
}

}  // namespace

std::vector<int32_t> encode_prompt(const ModelFolder& folder, std::string_view text, int64_t context) {
  EPS_CHECK(folder.tokenizer.has_value());
  const auto refuse = [context](const std::string& got) {
    fail(ErrorKind::kInput, "prompt",
         {.what = "leaves no room for output in the context",
          .got = got,
          .wanted = fmt::format("at most {} tokens", context - 1),
          .hint = "a shorter prompt"});
  };
  // Text has about four bytes per token, and even runs of spaces hardly reach 64. Without this limit, normalizers,
  // which need the whole text, would process hundreds of megabytes that are refused afterwards.
  constexpr int64_t kMostBytesPerToken = 64;
  constexpr int64_t kAlwaysEncodedBytes = int64_t{1} << 16;
  const int64_t most_bytes = kAlwaysEncodedBytes + kMostBytesPerToken * std::min(context, INT64_MAX / 128);
  if (std::ssize(text) > most_bytes) refuse(fmt::format("{} bytes", text.size()));
  const auto most = static_cast<size_t>(std::max<int64_t>(0, context - 1));
  std::vector<int32_t> ids = folder.tokenizer->encode(text, true, most);
  require_rows(folder, ids);
  if (folder.add_bos) {
    const int32_t bos = bos_token(folder);
    if (ids.empty() || ids.front() != bos) ids.insert(ids.begin(), bos);
  }
  if (ids.size() > most) refuse(fmt::format("more than {} tokens", most));
  return ids;
}

std::vector<int32_t> encode_text(const ModelFolder& folder, std::string_view text,
                                 const std::function<bool()>& keep_going) {
  EPS_CHECK(folder.tokenizer.has_value());
  std::vector<int32_t> ids = folder.tokenizer->encode(text, false, SIZE_MAX, keep_going);
  require_rows(folder, ids);
  return ids;
}

int32_t bos_token(const ModelFolder& folder) {
  for (const auto* ids : {&folder.generation.bos_token_ids, &folder.spec.bos_token_ids}) {
    if (ids->empty()) continue;
    const int id = ids->front();
    if (id < 0 || id >= folder.spec.vocab_size) break;
    return id;
  }
  fail(
      ErrorKind::kInput, folder.checkpoint ? folder.checkpoint->config_path() : "config.json",
      {.what = "no usable begin-of-text token", .got = "", .wanted = "bos_token_id inside the vocabulary", .hint = ""});
}

}  // namespace eps::engine
