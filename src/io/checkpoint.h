// A model folder: config.json and the weights, either in one safetensors file or in shards with an index.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/safetensors.h"
#include "tensor/tensor.h"

namespace eps::io {

struct DTypeTotals {
  uint64_t num_tensors = 0;
  uint64_t num_elements = 0;
  uint64_t num_bytes = 0;
};

// Owns    the open files. Move-only.
// Threads const methods from any thread
// Order   model.safetensors is used if there is also a model.safetensors.index.json. If there are several copies of a
//         tensor, the index determines which one is used.
// Edge    tensors of a shard that the index does not list are included
// Whether a file of this name in a model folder may be read: weights, their index and the JSON files.
bool is_checkpoint_file(std::string_view name);

class Checkpoint {
 public:
  // Errors  kInput, naming the file and, for weights, the tensor: folder or file missing, config.json is not an object,
  //         a broken file (safetensors_header.h), an index that does not match its shards or refers to files outside
  //         the folder
  static Checkpoint open(const std::string& dir);

  const std::string& dir() const { return dir_; }
  const Json& config() const { return config_; }  // an object
  std::string config_path() const;                // for error messages about config()

  bool has(std::string_view name) const { return tensors_.contains(name); }
  // Errors  kInput when there is no such tensor (with the nearest name), or several of which the index lists none
  const TensorInfo& info(std::string_view name) const;
  // The file that contains a tensor.  Errors  as for info
  const SafetensorsFile& file(std::string_view name) const;

  // A tensor's shape and dtype. They are checked only here, because unused tensors may have any shape and dtype.
  // Errors  as for info; kInput for an unsupported dtype and for a shape other than `want`
  TensorType type(std::string_view name, const Shape& want) const;
  // The same for a tensor whose dtype only the caller knows to unpack.
  void require_shape(std::string_view name, const Shape& want) const;
  // Errors  as for type, with any shape; kResource when the file was changed since it was opened (InputFile::read_at)
  OwnedTensor read(std::string_view name) const;

  std::vector<std::string> names() const;  // sorted
  uint64_t num_parameters() const;         // elements of all tensors
  uint64_t total_bytes() const;
  std::map<std::string, DTypeTotals> dtype_totals() const;  // by dtype_label: "bf16", "f32", …

  // What was ignored when the folder was opened: copies of tensors that the index takes from another shard, and an
  // index next to a single file.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Entry {
    size_t file;                            // in files_
    size_t tensor;                          // in files_[file].tensors()
    std::optional<size_t> other_file = {};  // a second copy, when the index lists neither
  };

  void add_shard(const std::string& shard, const std::map<std::string, std::string>& shard_of);
  void open_shards(const std::string& index_path);
  const Entry& find(std::string_view name) const;
  const TensorInfo& info_of(const Entry& entry) const { return files_[entry.file].tensors()[entry.tensor]; }

  std::string dir_;
  Json config_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Entry, std::less<>> tensors_;
  std::vector<std::string> notes_;
};

// Returns the candidate that differs from `name` only by a prefix, otherwise the one with the smallest edit distance,
// or an empty text if none is similar enough.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace eps::io
