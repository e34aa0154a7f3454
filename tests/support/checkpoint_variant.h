// Golden checkpoints that tests change.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "epsmoe/engine.h"
#include "io/safetensors_files.h"
#include "support/golden.h"

namespace eps::test {

struct StoredTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};
using StoredTensors = std::map<std::string, StoredTensor>;

inline StoredTensor floats(const std::vector<int64_t>& shape, float value) {
  StoredTensor out{"F32", shape, {}};
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  for (int64_t i = 0; i < count; ++i) out.bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  return out;
}

// `padding` spaces follow the header, whatever its length.
inline std::string file_of(const StoredTensors& tensors, size_t padding = 0) {
  io::Json header = io::Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return safetensors_bytes(header.dump() + std::string(padding, ' '), data);
}

// A golden checkpoint of one file, which a test modifies and writes to its own folder.
class CheckpointVariant {
 public:
  explicit CheckpointVariant(const std::string& golden = "plain") : golden_(golden) {
    const std::string dir = (golden_root() / golden).string();
    config = io::read_json_file(dir + "/config.json");
    const io::SafetensorsFile file = io::SafetensorsFile::open(dir + "/model.safetensors");
    for (const io::TensorInfo& info : file.tensors()) {
      StoredTensor tensor{info.dtype, info.dims, std::string(info.num_bytes(), '\0')};
      file.read_bytes(info, 0, std::as_writable_bytes(std::span(tensor.bytes)));
      tensors.emplace(info.name, std::move(tensor));
    }
  }

  engine::ModelFolder open() const {
    dir_.write("config.json", config_text.empty() ? config.dump() : config_text);
    std::string file = file_of(tensors, padding);
    file.resize(file.size() - cut_bytes);
    dir_.write("model.safetensors", file);
    return engine::open_model_folder(dir_.path(), false);
  }

  // Whether the logits are those of the golden checkpoint.
  bool has_golden_logits() const {
    const engine::ModelFolder folder = open();
    const Golden golden = read_golden(golden_, folder.spec.vocab_size);
    ModelRanks ranks(folder, {"cpu", "f32", 1, "off", 1});
    return relative_error(ranks.run(golden.ids, {0}), golden.logits) < 1e-4;
  }

  // Opens the folder through the public API, which refuses misplaced weights.
  void open_engine() const {
    (void)open();
    EngineOptions options;
    options.model = dir_.path();
    options.threads = 1;
    Engine::open(options);
  }

  const TempDir& dir() const { return dir_; }

  io::Json config;
  std::string config_text;  // instead of `config`
  StoredTensors tensors;
  size_t padding = 0;
  size_t cut_bytes = 0;  // from the end of the file

 private:
  std::string golden_;
  TempDir dir_;
};

}  // namespace eps::test
