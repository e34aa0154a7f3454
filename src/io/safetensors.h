// One safetensors file: its header, and its tensors, which are read into memory on request.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "io/safetensors_header.h"
#include "tensor/tensor.h"

namespace eps::io {

// A tensor in memory of its own, which is aligned for all kernels regardless of its position in the file.
struct OwnedTensor {
  Buffer memory;
  TensorView view;
};

// Weights are read rather than mapped: if a mapped file were truncated, the program would end with SIGBUS, and if it
// were overwritten, the weights would silently change.
//
// Owns    the open file. Move-only.
// Threads const methods from any thread
// Cost    opening reads the header, read() the tensor
class SafetensorsFile {
 public:
  // Errors  those of InputFile and parse_safetensors_header
  static SafetensorsFile open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }  // by position in the file
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const TensorInfo* find(std::string_view name) const;  // nullptr when absent

  // Reads a tensor; `info` is one of tensors().
  //
  // Errors  those of tensor_type, and those of InputFile::read_at
  OwnedTensor read(const TensorInfo& info) const;
  // Reads bytes [offset, offset + to.size()) of the tensor, whatever its dtype.
  void read_bytes(const TensorInfo& info, uint64_t offset, std::span<std::byte> to) const;

 private:
  explicit SafetensorsFile(const std::string& path) : file_(path) {}

  InputFile file_;
  SafetensorsHeader header_;
  std::map<std::string, size_t, std::less<>> index_of_name_;
};

}  // namespace eps::io
