#include <fmt/format.h>

#include <cmath>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "io/json.h"

namespace eps::io {
namespace {

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

template <typename T>
std::string wanted_of() {
  if constexpr (IsVector<T>::value) {
    return "a list, each element " + wanted_of<typename T::value_type>();
  } else if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_same_v<T, int>) {
    return "an integer of 32 bits";
  } else if constexpr (std::is_integral_v<T>) {
    return "an integer";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "a number";
  } else {
    return "a string";
  }
}

template <typename T>
std::optional<T> convert(const Json& value) {
  if constexpr (IsVector<T>::value) {
    if (!value.is_array()) return std::nullopt;
    T out;
    out.reserve(value.size());
    for (const Json& element : value) {
      auto converted = convert<typename T::value_type>(element);
      if (!converted) return std::nullopt;
      out.push_back(std::move(*converted));
    }
    return out;
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) return std::nullopt;
    return value.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    if (!value.is_number_integer()) return std::nullopt;
    if (value.is_number_unsigned() && !std::in_range<T>(value.get<uint64_t>())) return std::nullopt;
    if (!value.is_number_unsigned() && !std::in_range<T>(value.get<int64_t>())) return std::nullopt;
    return value.get<T>();
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) return std::nullopt;
    const double number = value.get<double>();
    if (!std::isfinite(number)) return std::nullopt;
    if (std::abs(number) > static_cast<double>(std::numeric_limits<T>::max())) return std::nullopt;
    return static_cast<T>(number);
  } else {
    if (!value.is_string()) return std::nullopt;
    return value.get<std::string>();
  }
}

// Describes a value that is not a T. For lists, describes the first invalid element.
template <typename T>
std::string describe_culprit(const Json& value) {
  if constexpr (IsVector<T>::value) {
    if (value.is_array()) {
      for (size_t i = 0; i < value.size(); ++i) {
        if (!convert<typename T::value_type>(value[i])) {
          return fmt::format("{} as element {}", describe_json(value[i]), i);
        }
      }
    }
  }
  return describe_json(value);
}

}  // namespace

JsonObject::JsonObject(const Json& value, std::string where, std::string path)
    : value_(&value), where_(std::move(where)), path_(std::move(path)) {
  if (!value.is_object()) {
    fail(ErrorKind::kInput, where_,
         {path_.empty() ? "the content" : fmt::format("key \"{}\"", path_), describe_json(value), "an object", ""});
  }
}

const Json* JsonObject::find(std::string_view key) const {
  const auto it = value_->find(key);
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

std::string JsonObject::path_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const Json& JsonObject::require(std::string_view key, std::string_view wanted) const {
  const Json* found = find(key);
  if (found == nullptr) {
    const bool is_null = value_->contains(key);
    fail(ErrorKind::kInput, where_,
         {fmt::format("{}key \"{}\"", is_null ? "" : "missing ", path_of(key)), is_null ? "null" : "",
          std::string(wanted), ""});
  }
  return *found;
}

void JsonObject::reject(std::string_view key, const std::string& wanted, const std::string& hint) const {
  const Json* found = find(key);
  fail(ErrorKind::kInput, where_,
       {fmt::format("key \"{}\"", path_of(key)), found == nullptr ? "nothing" : describe_json(*found), wanted, hint});
}

template <typename T>
T JsonObject::get(std::string_view key) const {
  const Json& value = require(key, wanted_of<T>());
  auto converted = convert<T>(value);
  if (!converted) {
    const bool is_not_finite = value.is_number_float() && !std::isfinite(value.get<double>());
    fail(ErrorKind::kInput, where_,
         {fmt::format("key \"{}\"", path_of(key)), describe_culprit<T>(value),
          is_not_finite ? "a finite number" : wanted_of<T>(), ""});
  }
  return std::move(*converted);
}

template bool JsonObject::get<bool>(std::string_view) const;
template int JsonObject::get<int>(std::string_view) const;
template int64_t JsonObject::get<int64_t>(std::string_view) const;
template float JsonObject::get<float>(std::string_view) const;
template double JsonObject::get<double>(std::string_view) const;
template std::string JsonObject::get<std::string>(std::string_view) const;
template std::vector<bool> JsonObject::get<std::vector<bool>>(std::string_view) const;
template std::vector<int> JsonObject::get<std::vector<int>>(std::string_view) const;
template std::vector<int64_t> JsonObject::get<std::vector<int64_t>>(std::string_view) const;
template std::vector<float> JsonObject::get<std::vector<float>>(std::string_view) const;
template std::vector<double> JsonObject::get<std::vector<double>>(std::string_view) const;
template std::vector<std::string> JsonObject::get<std::vector<std::string>>(std::string_view) const;

int64_t JsonObject::int_in(std::string_view key, int64_t min, int64_t max) const {
  constexpr int64_t kNoMax = std::numeric_limits<int64_t>::max();
  const std::string wanted =
      max == kNoMax ? fmt::format("an integer of at least {}", min) : fmt::format("an integer from {} to {}", min, max);
  const auto number = convert<int64_t>(require(key, wanted));
  if (!number || *number < min || *number > max) reject(key, wanted);
  return *number;
}

JsonObject JsonObject::child(std::string_view key) const {
  return JsonObject(require(key, "an object"), where_, path_of(key));
}

std::optional<JsonObject> JsonObject::optional_child(std::string_view key) const {
  return has(key) ? std::optional<JsonObject>(child(key)) : std::nullopt;
}

std::vector<JsonObject> JsonObject::children(std::string_view key) const {
  const Json& list = require(key, "a list of objects");
  if (!list.is_array()) reject(key, "a list of objects");
  std::vector<JsonObject> out;
  out.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    out.emplace_back(list[i], where_, fmt::format("{}[{}]", path_of(key), i));
  }
  return out;
}

}  // namespace eps::io
