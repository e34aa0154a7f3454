#include "cli/toml.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/error.h"
#include "base/utf8.h"

namespace eps::cli {
namespace {

// "bench.sweep.repetitions" has three.
constexpr size_t kMaxParts = 5;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_name_character(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
}

class Reader {
 public:
  Reader(const std::string& file, std::string_view text) : file_(file), text_(text) {
    constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
    if (text_.starts_with(kByteOrderMark)) text_.remove_prefix(kByteOrderMark.size());
  }

  std::vector<TomlEntry> read() {
    std::vector<TomlEntry> out;
    for (skip_blank_lines(); !at_end(); skip_blank_lines()) {
      first_line_ = line_;
      begin_ = at_;
      key_.clear();
      if (peek() == '[') {
        out.push_back({.line = line_, .is_section = true, .path = section_ = read_section(), .values = {}});
      } else {
        out.push_back(read_entry());
      }
      end_line();
    }
    return out;
  }

 private:
  // Errors refer to the first line of a list that spans several.
  [[noreturn]] void reject(const std::string& what, const std::string& got, const std::string& wanted) const {
    fail(ErrorKind::kInput, fmt::format("{}:{}", file_, first_line_),
         {.what = key_.empty() ? what : key_ + ": " + what, .got = got, .wanted = wanted, .hint = ""});
  }

  bool at_end() const { return at_ == text_.size(); }
  char peek() const { return at_end() ? '\n' : text_[at_]; }
  bool at_line_end() const { return peek() == '\n' || text_.substr(at_, 2) == "\r\n"; }
  void skip_spaces() {
    while (!at_end() && (peek() == ' ' || peek() == '\t')) ++at_;
  }

  // The rest of a line without its last spaces.
  std::string line_from(size_t begin) const {
    const std::string_view line = text_.substr(begin, text_.find('\n', begin) - begin);
    return std::string(line.substr(0, line.find_last_not_of(" \t\r") + 1));
  }

  void skip_blank_lines() {
    while (!at_end()) {
      skip_spaces();
      if (peek() == '#') at_ = std::min(text_.find('\n', at_), text_.size());
      if (at_end() || !at_line_end()) return;
      at_ = text_.find('\n', at_) + 1;
      ++line_;
    }
  }

  void end_line() {
    skip_spaces();
    if (at_end() || at_line_end() || peek() == '#') return;
    reject("text after the end of the value", line_from(at_), "one value; texts must be in quotes");
  }

  std::vector<std::string> read_section() {
    if (text_.substr(at_, 2) == "[[") reject("arrays of tables are not supported", line_from(at_), "[command]");
    ++at_;
    std::vector<std::string> out = read_path({});
    if (peek() != ']') reject("a section's bracket is not closed", line_from(begin_), "[command]");
    ++at_;
    return out;
  }

  std::vector<std::string> read_path(std::vector<std::string> out) {
    for (bool more = true; more; ++at_) {
      skip_spaces();
      if (peek() == '"' || peek() == '\'') {
        out.push_back(read_text());
      } else {
        const size_t begin = at_;
        while (!at_end() && is_name_character(peek())) ++at_;
        if (at_ == begin) reject("not a section or a flag", line_from(begin_), "[command] or NAME = VALUE");
        out.emplace_back(text_.substr(begin, at_ - begin));
      }
      if (out.size() > kMaxParts) {
        reject("a name with too many dots", line_from(begin_), "[command], [bench.command] or a flag's name");
      }
      skip_spaces();
      more = peek() == '.';
      if (!more) break;
    }
    return out;
  }

  TomlEntry read_entry() {
    TomlEntry entry{.line = line_, .is_section = false, .path = read_path(section_), .values = {}};
    if (peek() != '=') reject("not a section or a flag", line_from(begin_), "[command] or NAME = VALUE");
    ++at_;
    key_ = entry.path.back();
    skip_spaces();
    if (at_end() || at_line_end() || peek() == '#') {
      reject("has no value", "", "NAME = VALUE; \"\" is the empty text");
    }
    entry.values = peek() == '[' ? read_list() : std::vector{read_value()};
    return entry;
  }

  std::vector<std::string> read_list() {
    const std::string shown = line_from(at_);
    ++at_;
    std::vector<std::string> out;
    while (true) {
      skip_blank_lines();
      if (peek() == ']' && !out.empty()) break;
      if (peek() == ']' || peek() == ',') reject("a list without an item", shown, "[1, 2]");
      if (at_end() || (peek() == '[' && !out.empty())) reject("a list's bracket is not closed", shown, "[1, 2]");
      if (peek() == '[') reject("lists in lists are not supported", shown, "[1, 2]");
      out.push_back(read_value());
      skip_blank_lines();
      if (peek() == ']') break;
      if (at_end() || peek() != ',') reject("a list's bracket is not closed", shown, "[1, 2]");
      ++at_;
    }
    ++at_;
    return out;
  }

  std::string read_value() {
    if (peek() == '"' || peek() == '\'') return read_text();
    if (peek() == '{') reject("inline tables are not supported", line_from(at_), "[command]");
    const size_t begin = at_;
    at_ = std::min(text_.find_first_of(" \t\r\n,]#", at_), text_.size());
    const std::string word(text_.substr(begin, at_ - begin));
    check_word(word);
    return word;
  }

  // Of the values without quotes.
  void check_word(const std::string& word) const {
    if (word == "true" || word == "false") return;
    std::string_view digits = word;
    if (digits.starts_with('+') || digits.starts_with('-')) digits.remove_prefix(1);
    if (digits == "inf" || digits == "nan") return;  // the flags reject them
    const bool is_number = !digits.empty() && is_digit(digits.front());
    if (is_number && digits.size() > 1 && std::string_view("xob").find(digits[1]) != std::string_view::npos) {
      reject("only decimal numbers are supported", word, "decimal digits");
    }
    constexpr std::string_view kOfNumbers = "0123456789.eE+-_";
    if (!is_number || digits.find_first_not_of(kOfNumbers) != std::string_view::npos) {
      reject("texts must be in quotes", word, "\"" + word + "\"");
    }
    if (digits.find('_') != std::string_view::npos) {
      reject("underscores in numbers are not supported", word, "decimal digits");
    }
  }

  // A text in single quotes has no escapes.
  std::string read_text() {
    const char quote = peek();
    if (text_.substr(at_, 3) == std::string(3, quote)) {
      reject("multi-line texts are not supported", line_from(at_), R"("text on one line"; \n is a new line)");
    }
    const std::string shown = line_from(at_);
    ++at_;
    std::string out;
    while (peek() != quote) {
      if (at_end() || at_line_end()) reject("a quote is not closed", shown, "");
      if (quote == '"' && peek() == '\\') {
        read_escape(out);
      } else {
        out += text_[at_++];
      }
    }
    ++at_;
    return out;
  }

  void read_escape(std::string& out) {
    constexpr std::string_view kLetters = R"(ntrbf"\)";
    constexpr std::string_view kMeanings = "\n\t\r\b\f\"\\";
    const std::string_view rest = text_.substr(at_ + 1);
    const char letter = rest.empty() ? '\0' : rest.front();
    if (const size_t i = kLetters.find(letter); i != std::string_view::npos) {
      out += kMeanings[i];
      at_ += 2;
      return;
    }
    const size_t length = letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    const std::string_view digits = rest.substr(std::min<size_t>(1, rest.size()), length);
    uint32_t code = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    const bool is_whole = error == std::errc() && end == digits.data() + digits.size() && digits.size() == length;
    const bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
    if (length == 0 || !is_whole || code == 0 || code > 0x10ffff || is_surrogate) {
      const std::string_view escape = text_.substr(at_, 2 + length);
      reject("an unknown escape in double quotes", std::string(escape.substr(0, escape.find_first_of("\r\n"))),
             R"(\n \t \r \b \f \" \\ \uXXXX or \UXXXXXXXX; texts in single quotes have none)");
    }
    utf8_append(out, static_cast<char32_t>(code));
    at_ += 2 + length;
  }

  const std::string& file_;
  std::string_view text_;
  size_t at_ = 0;
  size_t begin_ = 0;  // of the current section or entry
  int line_ = 1;
  int first_line_ = 1;
  std::string key_;
  std::vector<std::string> section_;
};

}  // namespace

std::vector<TomlEntry> parse_toml(const std::string& file, const std::string& text) {
  return Reader(file, text).read();
}

}  // namespace eps::cli
