// The header of a safetensors file: parsed and checked as a value, without touching the tensors' data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace eps {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t begin = 0;  // the tensor's bytes are [begin, end) of the file
  uint64_t end = 0;

  uint64_t num_bytes() const { return end - begin; }
};

struct SafetensorsHeader {
  uint64_t data_begin = 0;          // where the header ends
  std::vector<TensorInfo> tensors;  // by position in the file, without gaps or overlaps
  std::map<std::string, std::string> metadata;
};

// Layout  u64 little-endian header length | JSON header, padded with spaces | data
//
// Promises about what it returns: every tensor lies inside the file and has exactly the bytes its shape and dtype ask
// for, element and byte counts fit int64, at most Shape::kMaxRank dimensions, data aligned to the element size, the
// tensors cover the data exactly.
//
// Errors  kInput with `where` and the tensor's name
// Source  the format's documentation, https://github.com/huggingface/safetensors#format
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file_bytes, const std::string& where);

}  // namespace eps
