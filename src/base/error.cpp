#include "base/error.h"

#include "base/terminal_text.h"
#include "base/utf8.h"

namespace eps {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage: return "usage";
    case ErrorKind::kInput: return "input";
    case ErrorKind::kInternal: return "internal";
    case ErrorKind::kTimeout: return "timeout";
    case ErrorKind::kAborted: return "aborted";
    case ErrorKind::kResource: return "resource";
    case ErrorKind::kInterrupted: return "interrupted";
  }
  return "unknown";
}

int exit_code(ErrorKind kind) {
  if (kind == ErrorKind::kInterrupted) return 130;  // 128 + SIGINT, as shells expect
  return kind == ErrorKind::kUsage || kind == ErrorKind::kInput ? 2 : 1;
}

Error::Error(ErrorKind kind, std::string where, std::string message)
    : std::runtime_error(where.empty() ? message : where + ": " + message),
      kind_(kind),
      where_(std::move(where)),
      message_(std::move(message)) {}

void fail(ErrorKind kind, std::string where, const Complaint& complaint) {
  std::string message = printable(complaint.what, 400);
  if (!complaint.got.empty()) message += ": got " + printable(complaint.got);
  if (!complaint.wanted.empty()) {
    message += (complaint.got.empty() ? ": wanted " : ", wanted ") + printable(complaint.wanted);
  }
  if (!complaint.hint.empty()) message += "; try " + printable(complaint.hint, 400);
  throw Error(kind, printable(where, 400), std::move(message));
}

namespace {

// Appends the character at text[i], escaped unless it is plain, and returns the index of the next one.
size_t append_printable(std::string& out, std::string_view text, size_t i) {
  const size_t length = utf8_sequence_length(text, i);
  if (length == 0) {
    out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
    return i + 1;
  }
  const char32_t c = utf8_decode(text, i);
  if (is_plain_character(c)) {
    out.append(text, i, length);
  } else if (c < 0x80) {
    out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
  } else if (c < 0x10000) {
    out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  } else {
    out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
  }
  return i + length;
}

}  // namespace

std::string printable(std::string_view text, size_t max_chars) {
  std::string out;
  size_t chars = 0;
  for (size_t i = 0; i < text.size();) {
    if (chars++ == max_chars) return out + "…";
    i = append_printable(out, text, i);
  }
  return out;
}

std::string printable_lines(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\n') {
      out += text[i++];
    } else {
      i = append_printable(out, text, i);
    }
  }
  return out;
}

namespace detail {
void check_failed(const char* file, int line, const char* condition, std::string detail) {
  std::string_view path(file);
  if (const size_t cut = path.find("src/"); cut != std::string_view::npos) path.remove_prefix(cut);
  throw Error(ErrorKind::kInternal, fmt::format("{}:{}", path, line),
              detail.empty() ? fmt::format("check failed: {}", condition)
                             : fmt::format("check failed: {} ({})", condition, detail));
}
}  // namespace detail

}  // namespace eps
