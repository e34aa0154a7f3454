// Strict JSON parsing, and typed access to objects with errors that name the file, the key, the value and what was
// expected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace eps::io {

using Json = nlohmann::json;

struct JsonLimits {
  size_t max_bytes = size_t{128} << 20;  // the largest tokenizer.json files have about 30 MB
  int max_depth = 128;                   // bounds the recursion of code that traverses the result
  // Python's json module writes and reads the literals NaN, Infinity and -Infinity, which JSON does not have.
  bool python_literals = false;
};

// For the files of a checkpoint, which Python programs write.
inline constexpr JsonLimits kPythonJson = {.python_literals = true};

// Stricter than RFC 8259 requires: no duplicate keys at any depth, no comments, no NaN or Infinity (except with
// `python_literals`), no number outside the range of double, no invalid UTF-8, nothing after the value.
//
// Errors  kInput with `where`, line and column
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});

// Errors  as parse_json, and those of read_file (io/file.h)
Json read_json_file(const std::string& path, const JsonLimits& limits = {});

// Replaces characters that are not plain (base/utf8.h) by \u escapes. In JSON, such characters can only be in strings.
std::string escape_json(std::string json);

// One line of JSON. Invalid bytes in strings that are not UTF-8 (such as file names) become U+FFFD. Characters are
// escaped so that the line is safe to print on a terminal; this does not change the value.
template <typename AnyJson>
std::string dump_json(const AnyJson& value, int indent = -1) {
  return escape_json(value.dump(indent, ' ', false, AnyJson::error_handler_t::replace));
}

// A short form of a JSON value for error messages: strings, numbers and literals as they are, "an object", "a list of
// 3".
std::string describe_json(const Json& value);

// A JSON object that is read field by field. Does not own the value, which must outlive it.
//
// A field that is null counts as absent, because configurations use both forms. T is one of bool, int, int64_t, float,
// double, std::string, or a std::vector of these (a list in the file). Integers must not be written as 2.0 or 2e3.
// float and double also accept integers, but not NaN or Infinity.
// Errors  kInput, naming the file, the path of the key, its value and what was expected
class JsonObject {
 public:
  // `path` leads from the file's top level to `value`, e.g. "rope_scaling"; empty for the top level itself.
  JsonObject(const Json& value, std::string where, std::string path = {});
  JsonObject(const Json&& value, std::string where, std::string path = {}) = delete;  // would dangle

  bool has(std::string_view key) const { return find(key) != nullptr; }
  // The field's value, or nullptr when absent or null.
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
  // The elements of the list `key`, each of which must be an object.
  std::vector<JsonObject> children(std::string_view key) const;

  const Json& value() const { return *value_; }
  const std::string& where() const { return where_; }
  std::string path_of(std::string_view key) const;  // "rope_scaling.factor"

  // Throws an error about a field whose value has the right type but is invalid.
  [[noreturn]] void reject(std::string_view key, const std::string& wanted, const std::string& hint = {}) const;

 private:
  const Json& require(std::string_view key, std::string_view wanted) const;

  const Json* value_;
  std::string where_;
  std::string path_;
};

}  // namespace eps::io
