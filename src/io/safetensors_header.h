// Parses and checks the header of a safetensors file, without reading the tensors' data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace eps::io {

inline constexpr uint64_t kSafetensorsLengthBytes = 8;

// A tensor as described by the header. Its dtype and shape are checked only when they are needed, because checkpoints
// contain many kinds of tensors that the forward pass does not use.
struct TensorInfo {
  std::string name;
  std::string dtype;  // as written in the file: "BF16", "F8_E4M3", …
  std::vector<int64_t> dims;
  uint64_t num_elements = 0;
  uint64_t begin = 0;  // the tensor's bytes are [begin, end) of the file
  uint64_t end = 0;

  uint64_t num_bytes() const { return end - begin; }
};

// The program's dtype for such tensors, if there is one.
std::optional<DType> known_dtype(const TensorInfo& info);
// "bf16"; for unsupported dtypes, the lower-case name in the file: "f64", "f8_e4m3".
std::string dtype_label(const TensorInfo& info);

// Whether a tensor has bytes in e4m3 (no dtype of the program's kernels, but weights can be unpacked from it).
inline bool is_e4m3(const TensorInfo& info) { return info.dtype == "F8_E4M3"; }

struct TensorType {
  DType dtype;
  Shape shape;
};
// Errors  kInput, naming the tensor: an unsupported dtype, too many dimensions
TensorType tensor_type(const TensorInfo& info, const std::string& where);

struct SafetensorsHeader {
  uint64_t data_begin = 0;          // where the header ends
  std::vector<TensorInfo> tensors;  // by position in the file, without gaps or overlaps
  std::map<std::string, std::string> metadata;
};

// The length of the JSON text that follows the first eight bytes of a file of `file_bytes` bytes.
// Edge    `start` may be shorter than eight bytes if the file is
// Errors  kInput with `where`: there is no header, or it is longer than the file
uint64_t safetensors_header_length(std::span<const std::byte> start, uint64_t file_bytes, const std::string& where);

// Layout  u64 little-endian header length | JSON header of any length | data
//
// Guarantees: every tensor is inside the file, element and byte counts fit int64, the tensors cover the data exactly,
// and a tensor of one of the format's dtypes has exactly as many bytes as its shape requires. Data need not be aligned.
//
// Errors  kInput with `where` and the tensor's name
// Source  the format's documentation, https://github.com/huggingface/safetensors#format
SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t file_bytes, const std::string& where);

}  // namespace eps::io
