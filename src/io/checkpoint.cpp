#include "io/checkpoint.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/error.h"
#include "io/file.h"

namespace eps::io {
namespace {

constexpr const char* kConfigName = "config.json";
constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

constexpr const char* kFolderHint = "a folder that holds config.json and model.safetensors";

void check_folder(const std::string& dir) {
  struct stat status = {};
  if (::stat(dir.c_str(), &status) != 0) {
    fail(ErrorKind::kInput, dir, {"cannot open the model folder", std::strerror(errno), "", kFolderHint});
  }
  if (!S_ISDIR(status.st_mode)) {
    fail(ErrorKind::kInput, dir, {"cannot open the model folder", "a file", "a folder", kFolderHint});
  }
}

// A shard must be a plain file name, so that an untrusted index cannot cause reads outside the folder.
void check_shard_name(const std::string& index_path, const std::string& tensor, const std::string& shard) {
  const bool has_control = std::any_of(shard.begin(), shard.end(), [](char c) { return c >= 0 && c < 0x20; });
  const std::string what = fmt::format("weight_map of tensor \"{}\"", printable(tensor, 120));
  if (shard.find('/') != std::string::npos || shard.find('\\') != std::string::npos || has_control) {
    fail(ErrorKind::kInput, index_path, {what, "\"" + shard + "\"", "the name of a file in the same folder", ""});
  }
  if (!shard.ends_with(".safetensors")) {
    fail(ErrorKind::kInput, index_path,
         {what, "\"" + shard + "\"", "a name ending in .safetensors", "converting the checkpoint to safetensors"});
  }
}

}  // namespace

bool is_checkpoint_file(std::string_view name) {
  return name == kConfigName || name == kIndexName || name.ends_with(".safetensors");
}

Checkpoint Checkpoint::open(const std::string& dir) {
  check_folder(dir);
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  const std::string config_path = checkpoint.config_path();
  if (!file_exists(config_path)) {
    fail(ErrorKind::kInput, config_path, {"no config.json in the model folder", "", "", kFolderHint});
  }
  checkpoint.config_ = read_json_file(config_path, kPythonJson);
  const JsonObject must_be_object(checkpoint.config_, config_path);

  const std::string single = join_path(dir, kSingleName);
  const std::string index = join_path(dir, kIndexName);
  if (file_exists(single)) {
    checkpoint.add_shard(kSingleName, {});
    if (file_exists(index)) {
      checkpoint.notes_.emplace_back(
          "model.safetensors.index.json: not read, because there is also a model.safetensors");
    }
  } else if (file_exists(index)) {
    checkpoint.open_shards(index);
  } else {
    const bool has_pickle =
        file_exists(join_path(dir, "pytorch_model.bin")) || file_exists(join_path(dir, "pytorch_model.bin.index.json"));
    fail(ErrorKind::kInput, dir,
         {"no weights in the model folder", has_pickle ? "pytorch_model.bin" : "",
          "model.safetensors or model.safetensors.index.json",
          has_pickle ? "converting the checkpoint to safetensors" : "downloading the weights"});
  }
  return checkpoint;
}

std::string Checkpoint::config_path() const { return join_path(dir_, kConfigName); }

// `shard_of` is the index's weight_map; empty if a single file contains all tensors.
void Checkpoint::add_shard(const std::string& shard, const std::map<std::string, std::string>& shard_of) {
  files_.push_back(SafetensorsFile::open(join_path(dir_, shard)));
  const auto& tensors = files_.back().tensors();
  size_t num_stale = 0;
  size_t num_unlisted = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto listed = shard_of.find(tensors[i].name);
    if (listed != shard_of.end() && listed->second != shard) {
      ++num_stale;
      continue;
    }
    if (!shard_of.empty() && listed == shard_of.end()) ++num_unlisted;
    const auto [it, inserted] = tensors_.emplace(tensors[i].name, Entry{files_.size() - 1, i});
    if (!inserted) it->second.other_file = files_.size() - 1;
  }
  if (num_stale > 0) {
    notes_.push_back(fmt::format("{}: {} tensor{} skipped, because the index takes {} from another shard",
                                 printable(shard, 120), num_stale, num_stale == 1 ? "" : "s",
                                 num_stale == 1 ? "it" : "them"));
  }
  if (num_unlisted > 0) {
    notes_.push_back(fmt::format("{}: {} tensor{} read that the index does not list, as transformers does",
                                 printable(shard, 120), num_unlisted, num_unlisted == 1 ? "" : "s"));
  }
}

void Checkpoint::open_shards(const std::string& index_path) {
  const Json index = read_json_file(index_path, kPythonJson);
  const JsonObject weight_map = JsonObject(index, index_path).child("weight_map");
  std::map<std::string, std::string> shard_of;
  std::set<std::string> shards;
  for (const auto& [tensor, value] : weight_map.value().items()) {
    const auto shard = weight_map.get<std::string>(tensor);
    check_shard_name(index_path, tensor, shard);
    shard_of.emplace(tensor, shard);
    shards.insert(shard);
  }
  if (shards.empty()) fail(ErrorKind::kInput, index_path, {"empty weight_map", "", "the shard of every tensor", ""});

  // Reports all missing files in one message before any file is read, because usually several downloads fail together.
  std::vector<std::string> missing;
  for (const std::string& shard : shards) {
    if (!file_exists(join_path(dir_, shard))) missing.push_back(shard);
  }
  if (!missing.empty()) {
    fail(ErrorKind::kInput, index_path,
         {fmt::format("{} of {} shards missing from the folder, first \"{}\"", missing.size(), shards.size(),
                      printable(missing.front(), 120)),
          "", "", "downloading the missing files"});
  }
  for (const std::string& shard : shards) add_shard(shard, shard_of);
  for (const auto& [tensor, shard] : shard_of) {
    if (tensors_.contains(tensor)) continue;
    fail(
        ErrorKind::kInput, join_path(dir_, shard),
        {fmt::format("tensor \"{}\" is not in this shard, although {} lists it there", printable(tensor, 120),
                     index_path),
         "", "", "downloading the index and the shards again: transformers would fill the tensor with random numbers"});
  }
}

const Checkpoint::Entry& Checkpoint::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    const std::string nearest = nearest_name(name, names());
    fail(ErrorKind::kInput, dir_,
         {fmt::format("missing tensor \"{}\"{}", printable(name, 120),
                      nearest.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", printable(nearest, 120))),
          "", "", ""});
  }
  if (it->second.other_file) {
    fail(ErrorKind::kInput, files_[*it->second.other_file].path(),
         {fmt::format("tensor \"{}\" is also in {}, and the index lists neither", printable(name, 120),
                      files_[it->second.file].path()),
          "", "every tensor in one shard", ""});
  }
  return it->second;
}

const TensorInfo& Checkpoint::info(std::string_view name) const { return info_of(find(name)); }

const SafetensorsFile& Checkpoint::file(std::string_view name) const { return files_[find(name).file]; }

TensorType Checkpoint::type(std::string_view name, const Shape& want) const {
  const TensorType type = tensor_type(info(name), file(name).path());
  require_shape(name, want);
  return type;
}

void Checkpoint::require_shape(std::string_view name, const Shape& want) const {
  const TensorInfo& tensor = info(name);
  const std::string got = fmt::format("[{}]", fmt::join(tensor.dims, ", "));
  if (got == want.to_string()) return;
  fail(ErrorKind::kInput, file(name).path(),
       {fmt::format("tensor \"{}\" has the wrong shape", printable(name, 120)), got, want.to_string(),
        "checking that config.json belongs to these weights"});
}

OwnedTensor Checkpoint::read(std::string_view name) const { return file(name).read(info(name)); }

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> out;
  out.reserve(tensors_.size());
  for (const auto& [name, entry] : tensors_) out.push_back(name);
  return out;
}

uint64_t Checkpoint::num_parameters() const {
  uint64_t sum = 0;
  for (const auto& [dtype, totals] : dtype_totals()) sum += totals.num_elements;
  return sum;
}

uint64_t Checkpoint::total_bytes() const {
  uint64_t sum = 0;
  for (const auto& [dtype, totals] : dtype_totals()) sum += totals.num_bytes;
  return sum;
}

std::map<std::string, DTypeTotals> Checkpoint::dtype_totals() const {
  std::map<std::string, DTypeTotals> totals;
  for (const auto& [name, entry] : tensors_) {
    const TensorInfo& tensor = info_of(entry);
    DTypeTotals& of_dtype = totals[dtype_label(tensor)];
    ++of_dtype.num_tensors;
    of_dtype.num_elements += tensor.num_elements;
    of_dtype.num_bytes += tensor.num_bytes();
  }
  return totals;
}

}  // namespace eps::io
