// The exception type that epsmoe throws.
#pragma once

#include <stdexcept>
#include <string>

namespace eps {

enum class ErrorKind {
  kUsage,        // wrong flags or arguments                 -> exit 2
  kInput,        // a file or text that cannot be accepted   -> exit 2
  kInternal,     // a violated invariant of the program      -> exit 1
  kTimeout,      // a wait between ranks timed out           -> exit 1
  kAborted,      // another rank failed first                -> exit 1
  kResource,     // memory, disk, threads                    -> exit 1
  kInterrupted,  // stopped through a StopToken              -> exit 130
};

class Error : public std::runtime_error {
 public:
  // `where` names the file, tensor, flag or source line the error is about; `message` is one line.
  Error(ErrorKind kind, std::string where, std::string message);

  ErrorKind kind() const { return kind_; }
  const std::string& where() const { return where_; }
  const std::string& message() const { return message_; }

 private:
  ErrorKind kind_;
  std::string where_;
  std::string message_;
};

}  // namespace eps
