// Strict JSON reading, and typed access to objects whose errors name the file, the key, what was there and what was
// wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace eps {

using Json = nlohmann::json;

struct JsonLimits {
  size_t max_bytes = size_t{128} << 20;  // the largest tokenizer.json files have about 30 MB
  int max_depth = 128;                   // bounds the recursion of everything that walks the result
  // Python's json module writes and reads the literals NaN, Infinity and -Infinity, which JSON does not have.
  bool python_literals = false;
};

// For the files of a checkpoint, which Python programs write.
inline constexpr JsonLimits kPythonJson = {.python_literals = true};

// Stricter than RFC 8259 asks: no duplicate keys at any depth, no comments, no NaN or Infinity (but for
// `python_literals`), no number outside the range of double, no invalid UTF-8, nothing after the value.
//
// Errors  kInput with `where`, line and column
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});

// Errors  as parse_json, and those of read_file (io/file.h)
Json read_json_file(const std::string& path, const JsonLimits& limits = {});

// JSON text with \u escapes for the characters in it that are not plain (base/utf8.h), which it may hold in strings
// only.
std::string escape_json(std::string json);

// One line of JSON. Strings that are not UTF-8 (a file's name, say) get U+FFFD for what is not. Safe to print on a
// terminal, and the same value to whatever reads it.
template <typename AnyJson>
std::string dump_json(const AnyJson& value, int indent = -1) {
  return escape_json(value.dump(indent, ' ', false, AnyJson::error_handler_t::replace));
}

// A JSON value cut to fit an error message: strings, numbers and literals as they are, "an object", "a list of 3".
std::string describe_json(const Json& value);

// A JSON object read field by field. Does not own the value, which has to outlive it.
//
// A field that is null counts as absent: configurations are written both ways.
// T is one of bool, int, int64_t, float, double, std::string, or a std::vector of these (a list in the file).
// Integers are refused when written as 2.0 or 2e3; float and double take integers, too, and no NaN or Infinity.
// Errors  kInput: the file, the path of the key, what it holds and what was wanted
class JsonObject {
 public:
  // `path` is what leads from the file's top to `value`, e.g. "rope_scaling"; empty for the top itself.
  JsonObject(const Json& value, std::string where, std::string path = {});
  JsonObject(const Json&& value, std::string where, std::string path = {}) = delete;  // would dangle

  bool has(std::string_view key) const { return find(key) != nullptr; }
  // The field as it is, or nullptr when absent or null.
  const Json* find(std::string_view key) const;

  template <typename T>
  T get(std::string_view key) const;
  template <typename T>
  std::optional<T> optional(std::string_view key) const {
    return has(key) ? std::optional<T>(get<T>(key)) : std::nullopt;
  }
  template <typename T>
  T get_or(std::string_view key, T fallback) const {
    return has(key) ? get<T>(key) : std::move(fallback);
  }

  // An integer in [min, max] / [1, max] / [0, max].
  int64_t int_in(std::string_view key, int64_t min, int64_t max) const;
  int64_t positive_int(std::string_view key, int64_t max = std::numeric_limits<int64_t>::max()) const {
    return int_in(key, 1, max);
  }
  int64_t non_negative_int(std::string_view key, int64_t max = std::numeric_limits<int64_t>::max()) const {
    return int_in(key, 0, max);
  }

  JsonObject child(std::string_view key) const;
  std::optional<JsonObject> optional_child(std::string_view key) const;
  // Every element of the list `key`, each of which has to be an object.
  std::vector<JsonObject> children(std::string_view key) const;

  const Json& value() const { return *value_; }
  const std::string& where() const { return where_; }
  std::string path_of(std::string_view key) const;  // "rope_scaling.factor"

  // Throws the error for a field whose value is of the right type but not acceptable.
  [[noreturn]] void reject(std::string_view key, const std::string& wanted, const std::string& hint = {}) const;

 private:
  const Json& require(std::string_view key, std::string_view wanted) const;

  const Json* value_;
  std::string where_;
  std::string path_;
};

}  // namespace eps
