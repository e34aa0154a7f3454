#include "io/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "io/file.h"

namespace eps::io {
namespace {

std::string line_and_column(std::string_view text, size_t offset) {
  offset = std::min(offset, text.size());
  size_t line = 1;
  size_t line_begin = 0;
  for (size_t i = 0; i < offset; ++i) {
    if (text[i] == '\n') {
      ++line;
      line_begin = i + 1;
    }
  }
  return fmt::format("line {}, column {}", line, offset - line_begin + 1);
}

[[noreturn]] void fail_at(const std::string& where, std::string_view text, size_t offset, const std::string& what,
                          const std::string& wanted, const std::string& hint = {}) {
  fail(ErrorKind::kInput, where, {fmt::format("{} at {}", what, line_and_column(text, offset)), "", wanted, hint});
}

// An iterator over the text that records the parser's position, so that errors detected in this file also have a
// position.
class TrackingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  TrackingIterator(const char* at, const char** reached) : at_(at), reached_(reached) {}
  const char& operator*() const { return *at_; }
  TrackingIterator& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  bool operator==(const TrackingIterator& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  const char** reached_;
};

// Python's literals for numbers that JSON lacks, and valid JSON numbers of the same length that replace them.
struct PythonLiteral {
  std::string_view text;
  std::string_view stand_in;
  double value;
};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::array<PythonLiteral, 3> kPythonLiterals = {{{"NaN", "0e0", std::numeric_limits<double>::quiet_NaN()},
                                                           {"Infinity", "1e000000", kInfinity},
                                                           {"-Infinity", "-1e000000", -kInfinity}}};

bool continues_word(char c) {
  const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return is_letter || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.' || c == '_';
}

// Replaces the literals outside of strings in `text` by numbers of the same length, so that offsets do not change.
// Returns the values of the literals by their offsets.
std::map<size_t, double> replace_python_literals(std::string& text) {
  std::map<size_t, double> values;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c != 'N' && c != 'I' && c != '-') continue;
    // Literals inside a longer word or number are not replaced, because that would turn invalid text into valid JSON.
    if (i > 0 && continues_word(text[i - 1])) continue;
    for (const PythonLiteral& literal : kPythonLiterals) {
      const size_t end = i + literal.text.size();
      if (text.compare(i, literal.text.size(), literal.text) != 0) continue;
      if (end < text.size() && continues_word(text[end])) continue;
      text.replace(i, literal.text.size(), literal.stand_in);
      values.emplace(i, literal.value);
      i += literal.text.size() - 1;
      break;
    }
  }
  return values;
}

// Builds the value while reading. The library's own builder accepts duplicate keys and has no depth limit.
class TreeBuilder : public nlohmann::json_sax<Json> {
 public:
  TreeBuilder(std::string_view text, const std::string& where, int max_depth,
              const std::map<size_t, double>& literals = {})
      : text_(text), where_(where), max_depth_(max_depth), literals_(literals), reached_(text.data()) {}

  TrackingIterator begin() { return {text_.data(), &reached_}; }
  TrackingIterator end() { return {text_.data() + text_.size(), &reached_}; }
  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool v) override { return add(v); }
  bool number_integer(number_integer_t v) override { return add(v); }
  bool number_unsigned(number_unsigned_t v) override { return add(v); }
  bool number_float(number_float_t v, const string_t& token) override {
    // The parser has already read the byte after the number, unless the number is at the end of the text.
    const auto reached = static_cast<size_t>(reached_ - text_.data());
    for (const size_t begin : {reached - token.size() - 1, reached - token.size()}) {
      const auto found = literals_.find(begin);
      if (found != literals_.end() && text_.substr(begin, token.size()) == token) return add(found->second);
    }
    return add(v);
  }
  bool string(string_t& v) override { return add(std::move(v)); }
  bool binary(binary_t&) override { return false; }  // not reachable from text
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    auto& members = stack_.back()->get_ref<Json::object_t&>();
    const auto [it, inserted] = members.emplace(name, nullptr);
    if (!inserted) {
      fail_at(where_, text_, offset(), fmt::format("duplicate key \"{}\"", printable(name, 80)), "every key once");
    }
    slot_ = &it->second;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // Extracts the reason from "[json.exception.parse_error.101] parse error at line 1, column 2: <reason>".
    std::string_view reason = error.what();
    if (const size_t cut = reason.find("] "); cut != std::string_view::npos) reason.remove_prefix(cut + 2);
    if (reason.starts_with("parse error at line ")) {
      if (const size_t cut = reason.find(": "); cut != std::string_view::npos) reason.remove_prefix(cut + 2);
    }
    fail_at(where_, text_, position == 0 ? 0 : position - 1, fmt::format("not valid JSON ({})", reason), "");
  }

 private:
  size_t offset() const {
    const auto count = static_cast<size_t>(reached_ - text_.data());
    return count == 0 ? 0 : count - 1;  // the byte read last
  }

  template <typename T>
  bool add(T&& value) {
    place(Json(std::forward<T>(value)));
    return true;
  }

  bool open(Json&& container) {
    if (std::ssize(stack_) >= max_depth_) {
      fail_at(where_, text_, offset(), "nested too deeply", fmt::format("at most {} levels", max_depth_));
    }
    stack_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  Json* place(Json&& value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    // Appending may move the siblings in memory. They are complete, so no pointer on the stack refers to them.
    if (auto* list = stack_.back()->get_ptr<Json::array_t*>()) return &list->emplace_back(std::move(value));
    *slot_ = std::move(value);
    return slot_;
  }

  std::string_view text_;
  const std::string& where_;
  int max_depth_;
  std::map<size_t, double> literals_;  // numbers that are not finite, by the offset of their replacement
  const char* reached_;
  Json root_;
  std::vector<Json*> stack_;  // the containers that are still open, outermost first
  Json* slot_ = nullptr;      // destination of the value of the last key
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    fail(ErrorKind::kInput, where,
         {"the JSON is too large", fmt::format("{} bytes", text.size()), fmt::format("at most {}", limits.max_bytes),
          ""});
  }
  if (const size_t bad = utf8_find_invalid(text); bad != std::string_view::npos) {
    fail_at(where, text, bad, "invalid UTF-8", "", "saving the file as UTF-8");
  }
  // The parser would treat a NUL byte as the end of the text and ignore everything after it.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    fail_at(where, text, nul, "not valid JSON (a NUL byte)", "");
  }
  std::string replaced;
  std::map<size_t, double> literals;
  // Most files contain no literals and need not be copied.
  const auto may_have = [text](const PythonLiteral& literal) { return text.find(literal.text) != text.npos; };
  if (limits.python_literals && std::ranges::any_of(kPythonLiterals, may_have)) {
    replaced = text;
    literals = replace_python_literals(replaced);
    text = replaced;
  }
  TreeBuilder builder(text, where, limits.max_depth, literals);
  Json::sax_parse(builder.begin(), builder.end(), &builder);
  return builder.take();
}

Json read_json_file(const std::string& path, const JsonLimits& limits) {
  return parse_json(read_file(path, limits.max_bytes), path, limits);
}

std::string escape_json(std::string json) {
  const auto is_ascii = [](char byte) { return static_cast<unsigned char>(byte) < 0x7f; };
  if (std::ranges::all_of(json, is_ascii)) return json;
  std::string out;
  out.reserve(json.size());
  for (size_t i = 0; i < json.size();) {
    const size_t length = utf8_sequence_length(json, i);
    const char32_t c = utf8_decode(json, i);
    if (c == '\n' || is_plain_character(c)) {
      out.append(json, i, length);
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {  // a pair of surrogates
      const uint32_t rest = static_cast<uint32_t>(c) - 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
    }
    i += length;
  }
  return out;
}

std::string describe_json(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (value.is_string()) return fmt::format("\"{}\"", printable(value.get_ref<const std::string&>(), 60));
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    const auto number = value.get<double>();
    return std::isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity";
  }
  return value.dump();
}

}  // namespace eps::io
