// Any bytes as a safetensors file: either a clean error, or a header that keeps every guarantee of
// safetensors_header.h. The first input byte chooses between the bytes as a file and as a header, whose length is then
// put in front: almost no random file has a length that fits.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "io/safetensors_header.h"

namespace {

void check_guarantees(const eps::io::SafetensorsHeader& header, size_t file_size) {
  uint64_t reached = header.data_begin;
  for (const eps::io::TensorInfo& tensor : header.tensors) {
    EPS_CHECK_EQ(tensor.begin, reached);
    EPS_CHECK_LE(tensor.begin, tensor.end);
    if (eps::io::known_dtype(tensor) && tensor.dims.size() <= eps::Shape::kMaxRank) {
      const eps::io::TensorType type = eps::io::tensor_type(tensor, "fuzz");
      EPS_CHECK_GE(type.shape.numel(), 0);
      EPS_CHECK_EQ(static_cast<uint64_t>(type.shape.numel()) * eps::size_of(type.dtype), tensor.num_bytes());
    }
    reached = tensor.end;
  }
  EPS_CHECK_EQ(reached, file_size);
}

// The input but for its last byte n is the header: padded, with its length in front and n bytes of data behind.
std::vector<std::byte> file_of(std::string_view input) {
  size_t data_bytes = 0;
  if (!input.empty()) {
    data_bytes = static_cast<unsigned char>(input.back());
    input.remove_suffix(1);
  }
  const uint64_t length = (input.size() + 7) / 8 * 8;
  std::vector<std::byte> file(sizeof(length) + length + data_bytes, std::byte{' '});
  std::memcpy(file.data(), &length, sizeof(length));
  if (!input.empty()) std::memcpy(file.data() + sizeof(length), input.data(), input.size());
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> rest(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  std::vector<std::byte> file(rest.begin(), rest.end());
  if (data[0] % 2 == 1) file = file_of({reinterpret_cast<const char*>(rest.data()), rest.size()});
  try {
    const std::span<const std::byte> bytes(file);
    const auto start = bytes.first(std::min<size_t>(bytes.size(), eps::io::kSafetensorsLengthBytes));
    const uint64_t length = eps::io::safetensors_header_length(start, bytes.size(), "fuzz");
    const auto* text = reinterpret_cast<const char*>(bytes.data()) + eps::io::kSafetensorsLengthBytes;
    check_guarantees(eps::io::parse_safetensors_header({text, length}, bytes.size(), "fuzz"), bytes.size());
  } catch (const eps::Error& error) {
    EPS_CHECK(error.kind() == eps::ErrorKind::kInput, "{}", error.what());
    EPS_CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
