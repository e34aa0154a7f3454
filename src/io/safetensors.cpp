#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"

namespace eps::io {

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile file(path);
  const uint64_t file_bytes = file.file_.size();
  std::array<std::byte, kSafetensorsLengthBytes> length{};
  const auto start = std::span(length).first(std::min<size_t>(file_bytes, length.size()));
  file.file_.read_at(0, start);
  std::string text(safetensors_header_length(start, file_bytes, path), '\0');
  file.file_.read_at(length.size(), std::as_writable_bytes(std::span(text)));
  file.header_ = parse_safetensors_header(text, file_bytes, path);
  for (size_t i = 0; i < file.header_.tensors.size(); ++i) file.index_of_name_.emplace(file.header_.tensors[i].name, i);
  return file;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_of_name_.find(name);
  return it == index_of_name_.end() ? nullptr : &header_.tensors[it->second];
}

OwnedTensor SafetensorsFile::read(const TensorInfo& info) const {
  const TensorType type = tensor_type(info, path());
  OwnedTensor out;
  out.memory.reserve(std::max<size_t>(1, info.num_bytes()));
  out.view = out.memory.view(type.dtype, type.shape);
  read_bytes(info, 0, {out.memory.data(), info.num_bytes()});
  return out;
}

void SafetensorsFile::read_bytes(const TensorInfo& info, uint64_t offset, std::span<std::byte> to) const {
  EPS_CHECK(offset <= info.num_bytes() && to.size() <= info.num_bytes() - offset);
  file_.read_at(info.begin + offset, to);
}

}  // namespace eps::io
