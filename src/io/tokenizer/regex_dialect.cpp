// Translates Oniguruma's regex syntax to PCRE2's.
//
// The two dialects agree on most syntax, but a construct with a different meaning would silently produce different
// tokens. Everything is therefore either known to be the same, translated, or rejected.
#include <cctype>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "io/tokenizer/regex.h"

namespace eps::io::tok {
namespace {

// Oniguruma's Unicode \w. PCRE2's \w lacks marks, connectors and circled letters, and includes all numbers of category
// No. Outside of brackets (and for \b) Oniguruma also includes six numbers of Latin-1, which are at the end here.
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})"
    R"(\xb2\xb3\xb9\xbc-\xbe)";
constexpr std::string_view kWordInBrackets = kWord.substr(0, kWord.find(R"(\xb2)"));

struct PosixClass {
  std::string_view name;
  std::string_view members;
};
constexpr PosixClass kPosixClasses[] = {{"alpha", R"(\p{Alphabetic})"},
                                        {"alnum", R"(\p{Alphabetic}\p{Nd})"},
                                        {"digit", R"(\p{Nd})"},
                                        {"lower", R"(\p{Lowercase})"},
                                        {"upper", R"(\p{Uppercase})"},
                                        {"punct", R"(\p{P}\p{S})"},
                                        {"space", R"(\s)"},
                                        {"blank", R"(\t\p{Zs})"},
                                        {"cntrl", R"(\p{Cc})"},
                                        {"xdigit", "0-9A-Fa-f"},
                                        {"word", kWordInBrackets}};

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      switch (c) {
        case '\\':
          atom_ = out_.size();
          escape();
          break;
        case '[':
          atom_ = out_.size();
          out_ += char_class();
          break;
        case '(': group(); break;
        case '{': interval(); break;
        case ')':
          if (!groups_.empty()) {
            atom_ = groups_.back();
            groups_.pop_back();
          }
          out_ += in_[at_++];
          break;
        default: {
          const bool continues_character = (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;
          if (!continues_character && c != '*' && c != '+' && c != '?') atom_ = out_.size();
          out_ += in_[at_++];
        }
      }
    }
    return std::move(out_);
  }

 private:
  // A union of characters: members of a PCRE2 class, and patterns for what such a class cannot hold.
  struct Union {
    std::string members;
    std::vector<std::string> patterns;
  };

  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorKind::kInput, where_,
         {fmt::format("the regex uses {}, which is not supported", what), std::string(in_), {}, {}});
  }
  bool next_is(std::string_view text) const { return in_.substr(at_).starts_with(text); }

  bool in_class() const { return set_ != nullptr; }
  std::string& out() { return in_class() ? set_->members : out_; }

  // Writes a class of characters, either separately or as members of the class being read. PCRE2 has no syntax for a
  // negated class among members, which becomes an alternative.
  void put_class(std::string_view members, bool negated) {
    if (!in_class()) {
      out_ += fmt::format("[{}{}]", negated ? "^" : "", members);
    } else if (negated) {
      set_->patterns.push_back(fmt::format("[^{}]", members));
    } else {
      set_->members += members;
    }
  }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse("a trailing backslash");
    const char c = in_[at_ + 1];
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) {
      out() += in_.substr(at_, 2);
      at_ += 2;
      return;
    }
    at_ += 2;
    switch (c) {
      case 'w': return put_class(in_class() ? kWordInBrackets : kWord, false);
      case 'W': return put_class(in_class() ? kWordInBrackets : kWord, true);
      case 'h': return put_class("0-9A-Fa-f", false);
      case 'H': return put_class("0-9A-Fa-f", true);
      case 'v': out() += R"(\x0b)"; return;
      case 'u': return code_unit();
      case 'd':
      case 'D':
      case 's':
      case 'S':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e': out() += {'\\', c}; return;
      case 'p':
      case 'P': out() += {'\\', c}; return property();
      case 'x': return hex();
      default: break;
    }
    if (in_class()) refuse(fmt::format("\\{} inside brackets", c));
    // \b and \B are written out, because PCRE2's are based on its own \w.
    switch (c) {
      case 'b': out() += fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", kWord); return;
      case 'B': out() += fmt::format("(?:(?<=[{0}])(?=[{0}])|(?<![{0}])(?![{0}]))", kWord); return;
      case 'A':
      case 'z':
      case 'Z':
      case 'R': out() += {'\\', c}; return;
      default: refuse(fmt::format("\\{}", c));
    }
  }

  // Copies {...}, which is not an interval here, with `prefix` before its content.
  void braces(std::string_view prefix) {
    const size_t end = in_.find('}', at_);
    if (!next_is("{") || end == std::string_view::npos) refuse("\\p or \\x without braces around the name");
    out() += fmt::format("{{{}{}", prefix, in_.substr(at_ + 1, end - at_));
    at_ = end + 1;
  }

  // In Oniguruma a script's name means the characters of that script. In PCRE2 it also includes characters of other
  // scripts that are used with it, unless it is prefixed by "sc:".
  void property() {
    const size_t end = in_.find('}', at_);
    const size_t first = at_ + (in_.substr(at_).starts_with("{^") ? 2 : 1);
    const bool category = end != std::string_view::npos && end - first <= 2;
    const std::string_view name = end == std::string_view::npos ? "" : in_.substr(first, end - first);
    const bool binary = name == "Any" || name == "Alphabetic" || name == "Lowercase" || name == "Uppercase";
    if (first == at_ + 2 && !category && !binary) refuse("a negated script \\p{^...}");
    braces(category || binary ? "" : "sc:");
  }

  void hex() {
    if (next_is("{")) {
      out() += R"(\x)";
      return braces("");
    }
    size_t digits = 0;
    while (digits < 2 && at_ + digits < in_.size() && std::isxdigit(static_cast<unsigned char>(in_[at_ + digits]))) {
      ++digits;
    }
    // Two digits from 80 on are a byte in Oniguruma, but a character in PCRE2.
    if (digits == 0 || (digits == 2 && in_[at_] >= '8')) refuse("\\x with a byte outside ASCII");
    out() += fmt::format("\\x{{{}}}", in_.substr(at_, digits));
    at_ += digits;
  }

  void code_unit() {
    const std::string_view digits = in_.substr(at_, 4);
    if (digits.size() != 4) refuse("\\u without four digits");
    for (const char digit : digits) {
      if (std::isxdigit(static_cast<unsigned char>(digit)) == 0) refuse("\\u without four digits");
    }
    out() += fmt::format("\\x{{{}}}", digits);
    at_ += 4;
  }

  static std::string pattern_of(const Union& set) {
    std::string alternatives = set.members.empty() ? "" : fmt::format("[{}]", set.members);
    for (const std::string& pattern : set.patterns) {
      if (!alternatives.empty()) alternatives += '|';
      alternatives += pattern;
    }
    return set.patterns.empty() ? alternatives : fmt::format("(?:{})", alternatives);
  }

  // Reads a class and returns a pattern for one of its characters. PCRE2's classes hold neither classes nor
  // intersections: what a class holds becomes alternatives, and all parts of an intersection but the last look ahead.
  std::string char_class() {
    ++at_;
    const bool negated = next_is("^");
    if (negated) ++at_;
    if (next_is("]")) refuse("an empty class");
    Union* const outer = set_;
    std::vector<Union> parts(1);  // of an intersection
    set_ = &parts.back();
    bool after_class = false;
    while (at_ < in_.size() && in_[at_] != ']') {
      const bool range_ends = !next_is("-") && set_->members.size() > 1 && set_->members.ends_with('-');
      const bool was_class = std::exchange(after_class, false);
      if (next_is("[:")) {
        posix_class();
      } else if (in_[at_] == '[') {
        if (range_ends) refuse("a hyphen between a character and a class");
        std::string inner = char_class();
        set_->patterns.push_back(std::move(inner));
        after_class = true;
      } else if (next_is("&&")) {
        if (range_ends || pattern_of(*set_).empty()) refuse("an incomplete intersection of classes (&&)");
        parts.emplace_back();
        set_ = &parts.back();
        at_ += 2;
      } else if (in_[at_] == '\\') {
        escape();
      } else {
        if (was_class && next_is("-") && !next_is("-]")) refuse("a hyphen after a class inside a class");
        if (next_is("^") && set_->members.empty()) set_->members += '\\';  // would negate
        set_->members += in_[at_++];
      }
    }
    if (at_ >= in_.size()) refuse("an unclosed class");
    ++at_;
    set_ = outer;
    return joined(parts, negated);
  }

  std::string joined(const std::vector<Union>& parts, bool negated) const {
    if (parts.size() == 1 && parts[0].patterns.empty()) {
      return fmt::format("[{}{}]", negated ? "^" : "", parts[0].members);
    }
    std::string all;
    for (const Union& part : parts) {
      const std::string pattern = pattern_of(part);
      if (pattern.empty()) refuse("an incomplete intersection of classes (&&)");
      all += &part == &parts.back() ? pattern : fmt::format("(?={})", pattern);
    }
    return fmt::format(fmt::runtime(negated ? "(?:(?!{})(?s:.))" : "(?:{})"), all);
  }

  void posix_class() {
    const size_t end = in_.find(":]", at_ + 2);
    if (end == std::string_view::npos) refuse("[: without :]");
    std::string_view name = in_.substr(at_ + 2, end - at_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    at_ = end + 2;
    for (const PosixClass& known : kPosixClasses) {
      if (known.name == name) return put_class(known.members, negated);
    }
    refuse(fmt::format("[:{}:]", name));
  }

  void group() {
    if (next_is("(*")) refuse("a verb (*...)");
    if (!next_is("(?")) {
      groups_.push_back(out_.size());
      out_ += in_[at_++];
      return;
    }
    for (const std::string_view plain : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"}) {
      if (next_is(plain)) {
        groups_.push_back(out_.size());
        out_ += plain;
        at_ += plain.size();
        return;
      }
    }
    if (next_is("(?m:")) {  // Oniguruma's m is PCRE2's s
      groups_.push_back(out_.size());
      out_ += "(?s:";
      at_ += 4;
    } else if (next_is("(?i)") && at_ == 0) {  // elsewhere, its scope differs between the two
      out_ += "(?i)";
      at_ += 4;
    } else {
      refuse(fmt::format("the group {}", in_.substr(at_, 4)));
    }
  }

  void interval() {
    size_t end = at_ + 1;
    bool comma = false;
    while (end < in_.size() && (std::isdigit(static_cast<unsigned char>(in_[end])) != 0 || in_[end] == ',')) {
      comma = comma || in_[end] == ',';
      ++end;
    }
    if (end == at_ + 1 || end >= in_.size() || in_[end] != '}') {  // not an interval: a literal brace in both
      atom_ = out_.size();
      out_ += R"(\{)";
      ++at_;
      return;
    }
    const std::string_view body = in_.substr(at_ + 1, end - at_ - 1);
    if (body == ",") refuse("the interval {,}");
    // {n}+ is possessive in PCRE2 and a repetition of a repetition in Oniguruma, {n}? is lazy in PCRE2 and optional in
    // Oniguruma: what is repeated becomes a group, to which the sign then applies.
    const std::string_view after = in_.substr(end + 1, 1);
    const bool again = after == "+" || after == "*" || (after == "?" && !comma);
    if (again) out_.insert(atom_, "(?:");
    out_ += fmt::format("{{{}{}}}{}", body.starts_with(',') ? "0" : "", body, again ? ")" : "");
    at_ = end + 1;
  }

  std::string_view in_;
  const std::string& where_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where in out_ begins what a quantifier would repeat
  std::vector<size_t> groups_;  // where in out_ the open groups begin
  Union* set_ = nullptr;        // the part of a class that is being read
};

}  // namespace

std::string onig_to_pcre2(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace eps::io::tok
