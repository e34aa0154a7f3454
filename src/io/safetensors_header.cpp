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

namespace eps::io {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian and used as it is read");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's reference implementation
constexpr int kMaxHeaderDepth = 8;                 // a valid header needs three

struct StoredDType {
  std::string_view name;
  int bits;                    // size of one element
  std::optional<DType> dtype;  // the corresponding dtype of the program, if there is one
};

// All dtypes of the format (version 0.8). Sizes of other types, which later versions may have, are not checked.
constexpr std::array<StoredDType, 22> kStoredDTypes = {
    {{"F32", 32, DType::kF32},         {"BF16", 16, DType::kBF16},   {"F16", 16, DType::kF16},
     {"I32", 32, DType::kI32},         {"I64", 64, DType::kI64},     {"U8", 8, DType::kU8},
     {"BOOL", 8, std::nullopt},        {"F4", 4, std::nullopt},      {"F6_E2M3", 6, std::nullopt},
     {"F6_E3M2", 6, std::nullopt},     {"I8", 8, std::nullopt},      {"F8_E5M2", 8, std::nullopt},
     {"F8_E4M3", 8, std::nullopt},     {"F8_E8M0", 8, std::nullopt}, {"F8_E4M3FNUZ", 8, std::nullopt},
     {"F8_E5M2FNUZ", 8, std::nullopt}, {"I16", 16, std::nullopt},    {"U16", 16, std::nullopt},
     {"U32", 32, std::nullopt},        {"U64", 64, std::nullopt},    {"F64", 64, std::nullopt},
     {"C64", 64, std::nullopt}}};

const StoredDType* find_stored_dtype(std::string_view name) {
  const auto* found = std::ranges::find(kStoredDTypes, name, &StoredDType::name);
  return found == kStoredDTypes.end() ? nullptr : found;
}

std::string shape_text(const std::vector<int64_t>& dims) { return fmt::format("[{}]", fmt::join(dims, ", ")); }

// Parses one tensor's entry. All of its errors begin with the file and the tensor's name.
class TensorReader {
 public:
  TensorReader(const std::string& where, const std::string& name, const Json& entry)
      : where_(where), name_(name), entry_(entry) {}

  TensorInfo read(uint64_t data_begin, uint64_t data_bytes) const {
    if (!entry_.is_object()) complain("the header entry", describe_json(entry_), "an object");
    TensorInfo info;
    info.name = name_;
    info.dtype = dtype();
    info.dims = dims();
    const auto [begin, end] = offsets(data_bytes);
    check_size(info, end - begin);
    info.begin = data_begin + begin;
    info.end = data_begin + end;
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

  std::string dtype() const {
    const Json& value = field("dtype");
    if (!value.is_string()) complain("dtype", describe_json(value), "a string");
    return value.get<std::string>();
  }

  std::vector<int64_t> dims() const {
    const Json& value = field("shape");
    if (!value.is_array()) complain("shape", describe_json(value), "a list of dimensions");
    std::vector<int64_t> dims;
    for (size_t i = 0; i < value.size(); ++i) {
      const auto dim = unsigned_integer(value[i]);
      if (!dim || !std::in_range<int64_t>(*dim)) {
        complain(fmt::format("dimension {} of shape", i), describe_json(value[i]), "an integer from 0 to 2^63-1");
      }
      dims.push_back(static_cast<int64_t>(*dim));
    }
    return dims;
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

  // Dimensions of 0 are excluded from the overflow check, so that the product of any subset of the dimensions is known
  // not to overflow.
  void check_size(TensorInfo& info, uint64_t got) const {
    const StoredDType* stored = find_stored_dtype(info.dtype);
    const int bits = stored == nullptr ? 8 : stored->bits;
    int64_t product = (bits + 7) / 8;
    int64_t elements = 1;
    for (const int64_t dim : info.dims) {
      if (dim != 0 && __builtin_mul_overflow(product, dim, &product)) {
        complain("shape", fmt::format("{} of {}", shape_text(info.dims), dtype_label(info)), "fewer than 2^63 bytes");
      }
      elements *= dim;
    }
    info.num_elements = static_cast<uint64_t>(elements);
    if (stored == nullptr) return;
    // Elements smaller than a byte are packed, and a tensor of them must fill whole bytes.
    const uint64_t want = bits >= 8 ? info.num_elements * static_cast<uint64_t>(bits / 8)
                                    : info.num_elements / 8 * static_cast<uint64_t>(bits) +
                                          (info.num_elements % 8 * static_cast<uint64_t>(bits) + 7) / 8;
    if (got != want) {
      complain("data_offsets", fmt::format("{} bytes", got),
               fmt::format("{} bytes for {} {}", want, dtype_label(info), shape_text(info.dims)));
    }
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

// The format requires tensors to follow one another without gaps, so that no byte is hidden or used twice.
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
            fmt::format("{}, where the previous one ends", reached - data_begin), ""});
    }
    if (tensor.begin > reached) {
      fail(ErrorKind::kInput, where,
           {fmt::format("hole in the data before tensor \"{}\"", printable(tensor.name, 120)),
            fmt::format("data_offsets that begin at {}", tensor.begin - data_begin),
            fmt::format("{}, where the previous one ends", reached - data_begin), ""});
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

}  // namespace

std::optional<DType> known_dtype(const TensorInfo& info) {
  const StoredDType* stored = find_stored_dtype(info.dtype);
  return stored == nullptr ? std::nullopt : stored->dtype;
}

std::string dtype_label(const TensorInfo& info) {
  if (const auto dtype = known_dtype(info)) return std::string(to_string(*dtype));
  std::string label = printable(info.dtype, 40);
  for (char& c : label) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return label;
}

TensorType tensor_type(const TensorInfo& info, const std::string& where) {
  const std::string what = fmt::format("tensor \"{}\": ", printable(info.name, 120));
  const std::optional<DType> dtype = known_dtype(info);
  if (!dtype) {
    fail(ErrorKind::kInput, where,
         {what + "unsupported dtype", info.dtype, "F32, BF16 or F16 (or I32, I64, U8)",
          "converting the checkpoint to BF16"});
  }
  if (info.dims.size() > Shape::kMaxRank) {
    fail(ErrorKind::kInput, where,
         {what + "shape", fmt::format("{} dimensions", info.dims.size()), fmt::format("at most {}", Shape::kMaxRank),
          ""});
  }
  return {*dtype, Shape(std::span<const int64_t>(info.dims))};
}

uint64_t safetensors_header_length(std::span<const std::byte> start, uint64_t file_bytes, const std::string& where) {
  if (file_bytes < kSafetensorsLengthBytes) {
    fail(ErrorKind::kInput, where,
         {"not a safetensors file: too short for a header length", fmt::format("{} bytes", file_bytes), "at least 8",
          "downloading the file again"});
  }
  EPS_CHECK_GE(start.size(), kSafetensorsLengthBytes);
  uint64_t length = 0;
  std::memcpy(&length, start.data(), kSafetensorsLengthBytes);
  const std::string got = fmt::format("{} bytes", length);
  if (length == 0) fail(ErrorKind::kInput, where, {"not a safetensors file: header length", got, "at least 2", ""});
  if (length > kMaxHeaderBytes) {
    fail(ErrorKind::kInput, where,
         {"not a safetensors file: header length", got, fmt::format("at most {}", kMaxHeaderBytes),
          "checking that it is a safetensors file (a Git LFS pointer is plain text)"});
  }
  if (length > file_bytes - kSafetensorsLengthBytes) {
    fail(ErrorKind::kInput, where,
         {"the header is longer than the file: header length", got,
          fmt::format("at most {}", file_bytes - kSafetensorsLengthBytes),
          "downloading the file again: it may be cut short"});
  }
  return length;
}

SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t file_bytes, const std::string& where) {
  EPS_CHECK_LE(kSafetensorsLengthBytes + text.size(), file_bytes);
  if (text.empty() || text.front() != '{') {
    fail(ErrorKind::kInput, where,
         {"not a safetensors file: the header begins with", fmt::format("\"{}\"", text.substr(0, 1)), "\"{\"", ""});
  }
  const Json root = parse_json(text, where + " (header)", {.max_bytes = kMaxHeaderBytes, .max_depth = kMaxHeaderDepth});

  SafetensorsHeader header;
  header.data_begin = kSafetensorsLengthBytes + text.size();
  for (const auto& [name, entry] : root.items()) {
    if (name == "__metadata__") {
      header.metadata = read_metadata(entry, where);
    } else {
      const TensorReader reader(where, name, entry);
      header.tensors.push_back(reader.read(header.data_begin, file_bytes - header.data_begin));
    }
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_coverage(header.tensors, header.data_begin, file_bytes, where);
  return header;
}

}  // namespace eps::io
