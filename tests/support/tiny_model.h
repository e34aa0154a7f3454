// A copy of tests/data/sampling, a model of 96 tokens that transformers has generated with, whose files tests change.
#pragma once

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "io/file.h"
#include "io/json.h"

namespace eps::test {

class TinyModel {
 public:
  TinyModel() {
    static int count = 0;
    dir_ = std::filesystem::temp_directory_path() /
           ("epsmoe_tiny_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
    std::filesystem::remove_all(dir_);
    std::filesystem::copy(std::string(EPSMOE_SOURCE_DIR) + "/tests/data/sampling", dir_);
  }
  TinyModel(const TinyModel&) = delete;
  TinyModel& operator=(const TinyModel&) = delete;
  ~TinyModel() { std::filesystem::remove_all(dir_); }

  std::string path() const { return dir_.string(); }

  void write(const std::string& name, const std::string& text) const { std::ofstream(dir_ / name) << text; }
  void write_generation_config(const std::string& text) const { write("generation_config.json", text); }

  // Sets row `row` of the f32 tensor [rows, width] `name` to `value`.
  void fill_row(const std::string& name, int64_t row, float value) const {
    const std::string file = (dir_ / "model.safetensors").string();
    std::string bytes = io::read_file(file, 1 << 24);
    uint64_t header_size = 0;
    std::memcpy(&header_size, bytes.data(), sizeof(header_size));
    const io::Json entry = io::parse_json(bytes.substr(8, header_size), "header").at(name);
    const auto width = entry.at("shape").at(1).get<size_t>();
    const size_t begin = 8 + header_size + entry.at("data_offsets").at(0).get<size_t>() +
                         static_cast<size_t>(row) * width * sizeof(float);
    for (size_t i = 0; i < width; ++i) std::memcpy(bytes.data() + begin + i * sizeof(float), &value, sizeof(float));
    std::ofstream(file, std::ios::binary) << bytes;
  }

 private:
  std::filesystem::path dir_;
};

inline constexpr const char* kTinyRouter = "model.layers.1.mlp.gate.weight";
inline constexpr const char* kTinyEmbedding = "model.embed_tokens.weight";
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

}  // namespace eps::test
