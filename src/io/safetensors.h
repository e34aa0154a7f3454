// One safetensors file, mapped; its tensors are views into the mapping.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/mapped_file.h"
#include "io/safetensors_header.h"
#include "tensor/tensor.h"

namespace eps {

// Owns    the mapping: views end with it. Move-only.
// Threads const methods from any thread
// Cost    opening reads the header; data is read from the disk when it is touched
class SafetensorsFile {
 public:
  // Errors  those of MappedFile::open and parse_safetensors_header
  static SafetensorsFile open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }  // by position in the file
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const TensorInfo* find(std::string_view name) const;  // nullptr when absent

  // `info` is one of tensors().
  TensorView view(const TensorInfo& info) const;

  // Gives the memory of a tensor back to the system; the view stays valid and reads from the disk again.
  void release(const TensorInfo& info) const { mapped_.release(info.begin, info.num_bytes()); }

 private:
  std::string path_;
  MappedFile mapped_;
  SafetensorsHeader header_;
  std::map<std::string, size_t, std::less<>> index_of_name_;
};

}  // namespace eps
