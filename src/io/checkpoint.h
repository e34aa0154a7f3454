// A model folder: config.json and the weights, in one safetensors file or in shards behind an index.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/safetensors.h"
#include "tensor/tensor.h"

namespace eps {

struct DTypeTotals {
  uint64_t num_tensors = 0;
  uint64_t num_elements = 0;
  uint64_t num_bytes = 0;
};

// Owns    the mapped files: views end with it. Move-only.
// Threads const methods from any thread
// Order   model.safetensors is taken when both it and model.safetensors.index.json are there
// Edge    tensors of a shard that the index does not list are taken, too
class Checkpoint {
 public:
  // Errors  kInput, naming the file, and for weights the tensor: folder or file missing, config.json not an object, a
  //         broken file (safetensors_header.h), an index that does not fit its shards or leads out of the folder
  static Checkpoint open(const std::string& dir);

  const std::string& dir() const { return dir_; }
  const Json& config() const { return config_; }  // an object
  std::string config_path() const;                // for error messages about config()

  bool has(std::string_view name) const { return tensors_.contains(name); }
  // Errors  kInput when there is no such tensor, with the nearest name
  TensorView tensor(std::string_view name) const;
  // Errors  kInput also when its shape is another one
  TensorView tensor(std::string_view name, const Shape& want) const;
  // Gives the memory of a tensor back to the system; views stay valid and read from the disk again.
  void release(std::string_view name) const;

  std::vector<std::string> names() const;  // sorted
  uint64_t num_parameters() const;         // elements of all tensors
  uint64_t total_bytes() const;
  std::map<std::string, DTypeTotals> dtype_totals() const;  // by "bf16", "f32", …

 private:
  struct Entry {
    size_t file;    // in files_
    size_t tensor;  // in files_[file].tensors()
  };

  void add_file(const std::string& path);
  void open_shards(const std::string& index_path);
  const Entry& find(std::string_view name) const;
  const TensorInfo& info(const Entry& entry) const { return files_[entry.file].tensors()[entry.tensor]; }

  std::string dir_;
  Json config_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Entry, std::less<>> tensors_;
};

// The candidate that is `name` but for a prefix, or that has the fewest edits from it; empty when none is near enough
// to be meant.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace eps
