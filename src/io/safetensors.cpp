#include "io/safetensors.h"

#include "base/error.h"

namespace eps {

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile file;
  file.path_ = path;
  file.mapped_ = MappedFile::open(path);
  file.header_ = parse_safetensors_header(file.mapped_.bytes(), path);
  for (size_t i = 0; i < file.header_.tensors.size(); ++i) file.index_of_name_.emplace(file.header_.tensors[i].name, i);
  return file;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_of_name_.find(name);
  return it == index_of_name_.end() ? nullptr : &header_.tensors[it->second];
}

TensorView SafetensorsFile::view(const TensorInfo& info) const {
  EPS_CHECK_LE(info.end, mapped_.bytes().size());
  return {mapped_.bytes().data() + info.begin, info.dtype, info.shape};
}

}  // namespace eps
