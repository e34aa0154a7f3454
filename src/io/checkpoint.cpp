#include "io/checkpoint.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/error.h"
#include "io/file.h"

namespace eps {
namespace {

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

// A shard is a plain file name: an index from elsewhere must not make us read outside the folder.
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

Checkpoint Checkpoint::open(const std::string& dir) {
  check_folder(dir);
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  const std::string config_path = checkpoint.config_path();
  if (!file_exists(config_path)) {
    fail(ErrorKind::kInput, config_path, {"no config.json in the model folder", "", "", kFolderHint});
  }
  checkpoint.config_ = read_json_file(config_path);
  const JsonObject must_be_object(checkpoint.config_, config_path);

  const std::string single = join_path(dir, "model.safetensors");
  const std::string index = join_path(dir, "model.safetensors.index.json");
  if (file_exists(single)) {
    checkpoint.add_file(single);
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

std::string Checkpoint::config_path() const { return join_path(dir_, "config.json"); }

void Checkpoint::add_file(const std::string& path) {
  files_.push_back(SafetensorsFile::open(path));
  const auto& tensors = files_.back().tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto [it, inserted] = tensors_.emplace(tensors[i].name, Entry{files_.size() - 1, i});
    if (!inserted) {
      fail(ErrorKind::kInput, path,
           {fmt::format("tensor \"{}\" is also in {}", printable(tensors[i].name, 120), files_[it->second.file].path()),
            "", "every tensor in one shard", ""});
    }
  }
}

void Checkpoint::open_shards(const std::string& index_path) {
  const Json index = read_json_file(index_path);
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

  // All missing files in one message, before any is read: downloads fail in groups.
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
  for (const std::string& shard : shards) add_file(join_path(dir_, shard));
  for (const auto& [tensor, shard] : shard_of) {
    const auto it = tensors_.find(tensor);
    const std::string path = join_path(dir_, shard);
    if (it == tensors_.end() || files_[it->second.file].path() != path) {
      fail(ErrorKind::kInput, path,
           {fmt::format("tensor \"{}\" is not in this shard, but {} says so", printable(tensor, 120), index_path),
            it == tensors_.end() ? "" : files_[it->second.file].path(), "",
            "downloading the index and the shards again: they do not belong together"});
    }
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
  return it->second;
}

TensorView Checkpoint::tensor(std::string_view name) const {
  const Entry& entry = find(name);
  return files_[entry.file].view(info(entry));
}

TensorView Checkpoint::tensor(std::string_view name, const Shape& want) const {
  const TensorView view = tensor(name);
  if (view.shape() != want) {
    fail(ErrorKind::kInput, files_[find(name).file].path(),
         {fmt::format("tensor \"{}\" has the wrong shape", printable(name, 120)), view.shape().to_string(),
          want.to_string(), "checking that config.json belongs to these weights"});
  }
  return view;
}

void Checkpoint::release(std::string_view name) const {
  const Entry& entry = find(name);
  files_[entry.file].release(info(entry));
}

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
    const TensorInfo& tensor = info(entry);
    DTypeTotals& of_dtype = totals[std::string(to_string(tensor.dtype))];
    ++of_dtype.num_tensors;
    of_dtype.num_elements += static_cast<uint64_t>(tensor.shape.numel());
    of_dtype.num_bytes += tensor.num_bytes();
  }
  return totals;
}

}  // namespace eps
