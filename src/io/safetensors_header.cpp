#include "io/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "io/json.h"

namespace eps {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian and used in place");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's reference implementation
constexpr int kMaxHeaderDepth = 8;                 // a valid header needs three

constexpr std::array<std::pair<std::string_view, DType>, 6> kDTypes = {{{"F32", DType::kF32},
                                                                        {"BF16", DType::kBF16},
                                                                        {"F16", DType::kF16},
                                                                        {"I32", DType::kI32},
                                                                        {"I64", DType::kI64},
                                                                        {"U8", DType::kU8}}};

// The errors of one tensor, all of which begin with the file and the tensor's name.
class TensorReader {
 public:
  TensorReader(const std::string& where, const std::string& name, const Json& entry)
      : where_(where), name_(name), entry_(entry) {}

  TensorInfo read(uint64_t data_begin, uint64_t data_bytes) const {
    if (!entry_.is_object()) complain("the header entry", describe_json(entry_), "an object");
    TensorInfo info;
    info.name = name_;
    info.dtype = dtype();
    info.shape = shape();
    const auto [begin, end] = offsets(data_bytes);
    const uint64_t want = checked_bytes(info.shape, info.dtype);
    if (end - begin != want) {
      complain("data_offsets", fmt::format("{} bytes", end - begin),
               fmt::format("{} bytes for {} {}", want, to_string(info.dtype), info.shape.to_string()));
    }
    info.begin = data_begin + begin;
    info.end = data_begin + end;
    if (want > 0 && info.begin % size_of(info.dtype) != 0) {
      complain("misaligned data", fmt::format("file offset {}", info.begin),
               fmt::format("a multiple of {} for {}", size_of(info.dtype), to_string(info.dtype)),
               "saving the file again with the safetensors library, which aligns it");
    }
    return info;
  }

 private:
  [[noreturn]] void complain(const std::string& what, const std::string& got, const std::string& wanted,
                             const std::string& hint = {}) const {
    fail(ErrorKind::kInput, where_, {fmt::format("tensor \"{}\": {}", printable(name_, 120), what), got, wanted, hint});
  }

  const Json& field(const char* key) const {
    const auto it = entry_.find(key);
    if (it == entry_.end()) complain(fmt::format("missing key \"{}\"", key), "", "dtype, shape and data_offsets");
    return *it;
  }

  DType dtype() const {
    const Json& value = field("dtype");
    if (!value.is_string()) complain("dtype", describe_json(value), "a string");
    for (const auto& [name, dtype] : kDTypes) {
      if (value.get_ref<const std::string&>() == name) return dtype;
    }
    complain("unsupported dtype", describe_json(value), "F32, BF16 or F16 (or I32, I64, U8)",
             "converting the checkpoint to BF16");
  }

  Shape shape() const {
    const Json& value = field("shape");
    if (!value.is_array()) complain("shape", describe_json(value), "a list of dimensions");
    if (value.size() > Shape::kMaxRank) {
      complain("shape", fmt::format("{} dimensions", value.size()), fmt::format("at most {}", Shape::kMaxRank));
    }
    std::array<int64_t, Shape::kMaxRank> dims{};
    for (size_t i = 0; i < value.size(); ++i) {
      const auto dim = unsigned_integer(value[i]);
      if (!dim || !std::in_range<int64_t>(*dim)) {
        complain(fmt::format("dimension {} of shape", i), describe_json(value[i]), "an integer from 0 to 2^63-1");
      }
      dims[i] = static_cast<int64_t>(*dim);
    }
    return Shape(std::span<const int64_t>(dims.data(), value.size()));
  }

  std::pair<uint64_t, uint64_t> offsets(uint64_t data_bytes) const {
    const Json& value = field("data_offsets");
    const bool is_pair = value.is_array() && value.size() == 2;
    const auto begin = is_pair ? unsigned_integer(value[0]) : std::nullopt;
    const auto end = is_pair ? unsigned_integer(value[1]) : std::nullopt;
    if (!begin || !end) {
      complain("data_offsets", is_pair ? value.dump() : describe_json(value), "two non-negative integers [begin, end]");
    }
    if (*begin > *end) complain("reversed data_offsets", value.dump(), "begin at or before end");
    if (*end > data_bytes) {
      complain("data_offsets beyond the end of the file", value.dump(), fmt::format("at most {}", data_bytes),
               "downloading the file again: it may be cut short");
    }
    return {*begin, *end};
  }

  // Bytes of the whole tensor. Dimensions of 0 are left out of the overflow check, so that the product of any of the
  // others fits as well and nobody has to check again.
  uint64_t checked_bytes(const Shape& shape, DType dtype) const {
    int64_t product = static_cast<int64_t>(size_of(dtype));
    bool is_empty = false;
    for (int i = 0; i < shape.rank(); ++i) {
      is_empty |= shape[i] == 0;
      if (shape[i] != 0 && __builtin_mul_overflow(product, shape[i], &product)) {
        complain("shape", fmt::format("{} of {}", shape.to_string(), to_string(dtype)), "fewer than 2^63 bytes");
      }
    }
    return is_empty ? 0 : static_cast<uint64_t>(product);
  }

  static std::optional<uint64_t> unsigned_integer(const Json& value) {
    return value.is_number_unsigned() ? std::optional<uint64_t>(value.get<uint64_t>()) : std::nullopt;
  }

  const std::string& where_;
  const std::string& name_;
  const Json& entry_;
};

std::map<std::string, std::string> read_metadata(const Json& value, const std::string& where) {
  if (!value.is_object()) {
    fail(ErrorKind::kInput, where, {"__metadata__", describe_json(value), "an object of strings", ""});
  }
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      fail(ErrorKind::kInput, where,
           {fmt::format("__metadata__ key \"{}\"", printable(key, 80)), describe_json(text), "a string", ""});
    }
    metadata.emplace(key, text.get<std::string>());
  }
  return metadata;
}

// The format asks for tensors that follow one another without holes, so that no byte is hidden or read twice.
void check_coverage(const std::vector<TensorInfo>& tensors, uint64_t data_begin, uint64_t file_bytes,
                    const std::string& where) {
  uint64_t reached = data_begin;
  const TensorInfo* previous = nullptr;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin < reached) {
      fail(ErrorKind::kInput, where,
           {fmt::format("tensors \"{}\" and \"{}\" overlap", printable(previous->name, 120),
                        printable(tensor.name, 120)),
            fmt::format("data_offsets that begin at {}", tensor.begin - data_begin),
            fmt::format("{}, where the one before ends", reached - data_begin), ""});
    }
    if (tensor.begin > reached) {
      fail(ErrorKind::kInput, where,
           {fmt::format("hole in the data before tensor \"{}\"", printable(tensor.name, 120)),
            fmt::format("data_offsets that begin at {}", tensor.begin - data_begin),
            fmt::format("{}, where the one before ends", reached - data_begin), ""});
    }
    reached = tensor.end;
    previous = &tensor;
  }
  if (reached != file_bytes) {
    fail(ErrorKind::kInput, where,
         {"data after the last tensor", fmt::format("{} bytes", file_bytes - reached), "none",
          "downloading the file again: something was appended to it"});
  }
}

uint64_t read_header_length(std::span<const std::byte> file_bytes, const std::string& where) {
  if (file_bytes.size() < kLengthBytes) {
    fail(ErrorKind::kInput, where,
         {"not a safetensors file: too short for a header length", fmt::format("{} bytes", file_bytes.size()),
          "at least 8", "downloading the file again"});
  }
  uint64_t length = 0;
  std::memcpy(&length, file_bytes.data(), kLengthBytes);
  const std::string got = fmt::format("{} bytes", length);
  if (length == 0) fail(ErrorKind::kInput, where, {"not a safetensors file: header length", got, "at least 2", ""});
  if (length > kMaxHeaderBytes) {
    fail(ErrorKind::kInput, where,
         {"not a safetensors file: header length", got, fmt::format("at most {}", kMaxHeaderBytes),
          "checking that the file is what its name says (a Git LFS pointer is plain text)"});
  }
  if (length > file_bytes.size() - kLengthBytes) {
    fail(ErrorKind::kInput, where,
         {"the header is longer than the file: header length", got,
          fmt::format("at most {}", file_bytes.size() - kLengthBytes),
          "downloading the file again: it may be cut short"});
  }
  return length;
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file_bytes, const std::string& where) {
  const uint64_t length = read_header_length(file_bytes, where);
  const std::string_view text(reinterpret_cast<const char*>(file_bytes.data()) + kLengthBytes, length);
  if (text.front() != '{') {
    fail(ErrorKind::kInput, where,
         {"not a safetensors file: the header begins with", fmt::format("\"{}\"", text.substr(0, 1)), "\"{\"", ""});
  }
  const Json root = parse_json(text, where + " (header)", {.max_bytes = kMaxHeaderBytes, .max_depth = kMaxHeaderDepth});

  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  for (const auto& [name, entry] : root.items()) {
    if (name == "__metadata__") {
      header.metadata = read_metadata(entry, where);
    } else {
      const TensorReader reader(where, name, entry);
      header.tensors.push_back(reader.read(header.data_begin, file_bytes.size() - header.data_begin));
    }
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_coverage(header.tensors, header.data_begin, file_bytes.size(), where);
  return header;
}

}  // namespace eps
