#include "engine/model_folder.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "io/file.h"

namespace eps {
namespace {

namespace fs = std::filesystem;

std::string preset_names() {
  std::string out;
  for (const Preset& preset : presets()) out += (out.empty() ? "" : ", ") + std::string(preset.name);
  return out;
}

void read_spec(ModelFolder& folder, const Json& config, const std::string& where) {
  const JsonObject object(config, where);
  folder.family = &find_family(object);
  folder.spec = folder.family->read_config(object);
}

void open_tokenizer(ModelFolder& folder, const std::string& dir) {
  const fs::path path = fs::path(dir) / "tokenizer.json";
  folder.tokenizer = Tokenizer::from_file(path.string());
  if (folder.tokenizer->vocab_size() > folder.spec.vocab_size) {
    fail(ErrorKind::kInput, path.string(),
         {.what = "has more tokens than the model",
          .got = std::to_string(folder.tokenizer->vocab_size()),
          .wanted = fmt::format("at most vocab_size = {}", folder.spec.vocab_size),
          .hint = "the tokenizer.json that belongs to this checkpoint"});
  }
  const fs::path config_path = fs::path(dir) / "tokenizer_config.json";
  if (!file_exists(config_path.string())) return;
  const Json config = read_json_file(config_path.string());
  folder.add_bos = JsonObject(config, config_path.string()).get_or<bool>("add_bos_token", false);
}

}  // namespace

bool is_preset(const std::string& model) {
  const bool known = std::any_of(presets().begin(), presets().end(), [&](const Preset& p) { return p.name == model; });
  return known && !file_exists(model);
}

ModelFolder open_model_folder(const std::string& model, bool dummy) {
  ModelFolder folder;
  if (model.empty()) {
    fail(ErrorKind::kUsage, "--model",
         {.what = "no model named",
          .got = "",
          .wanted = "a folder, or with --load-format dummy a preset: " + preset_names(),
          .hint = "-m models/austen-moe"});
  }
  if (is_preset(model)) {
    if (!dummy) {
      fail(ErrorKind::kUsage, "--model",
           {.what = "a preset has no weights", .got = model, .wanted = "a folder", .hint = "--load-format dummy"});
    }
    folder.spec = preset_spec(model);
    folder.family = &find_preset_family(model);
    return folder;
  }
  if (!file_exists(model)) {
    fail(ErrorKind::kInput, model,
         {.what = "no such model folder",
          .got = "",
          .wanted = "",
          .hint =
              "a folder with config.json and safetensors files, or --load-format dummy with one of " + preset_names()});
  }
  if (dummy) {
    const fs::path path = fs::path(model) / "config.json";
    read_spec(folder, read_json_file(path.string()), path.string());
  } else {
    folder.checkpoint = std::make_unique<Checkpoint>(Checkpoint::open(model));
    read_spec(folder, folder.checkpoint->config(), folder.checkpoint->config_path());
  }
  if (file_exists(join_path(model, "tokenizer.json"))) open_tokenizer(folder, model);
  folder.generation = read_generation_config(model);
  return folder;
}

DType stored_dtype(const ModelFolder& folder) {
  DType most = DType::kBF16;
  uint64_t bytes = 0;
  if (!folder.checkpoint) return most;
  for (const auto& [name, totals] : folder.checkpoint->dtype_totals()) {
    const std::optional<DType> dtype = parse_dtype(name);
    if (!dtype || totals.num_bytes <= bytes) continue;
    most = *dtype;
    bytes = totals.num_bytes;
  }
  return most;
}

std::vector<int32_t> encode_prompt(const ModelFolder& folder, std::string_view text, int64_t context) {
  EPS_CHECK(folder.tokenizer.has_value());
  const auto refuse = [context](const std::string& got) {
    fail(ErrorKind::kInput, "prompt",
         {.what = "does not leave room for an answer in the context",
          .got = got,
          .wanted = fmt::format("at most {} tokens", context - 1),
          .hint = "a shorter prompt"});
  };
  // Text has about four bytes a token, and even runs of spaces hardly get to 64. The bound is what keeps normalizers,
  // which need the whole text, from working on hundreds of megabytes that would be refused anyway.
  constexpr int64_t kMostBytesPerToken = 64;
  constexpr int64_t kAlwaysTried = int64_t{1} << 16;
  const int64_t most_bytes = kAlwaysTried + kMostBytesPerToken * std::min(context, INT64_MAX / 128);
  if (std::ssize(text) > most_bytes) refuse(fmt::format("{} bytes", text.size()));
  const auto most = static_cast<size_t>(std::max<int64_t>(0, context - 1));
  std::vector<int32_t> ids = folder.tokenizer->encode(text, true, most);
  if (folder.add_bos) {
    const int32_t bos = bos_token(folder);
    if (ids.empty() || ids.front() != bos) ids.insert(ids.begin(), bos);
  }
  if (ids.size() > most) refuse(fmt::format("more than {} tokens", most));
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

}  // namespace eps
