// One command of the command line, run in the test's own process.
#pragma once

#include <stdexcept>
#include <string>

namespace eps::test {

// What the command line's parser refuses before a command starts: an unknown flag, or a value that is not a number.
struct ParseError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What `line` ("plan -m …") prints on stdout. A return code other than 0 fails the test.
//
// Errors  ParseError, and those of the command as they are
std::string run_command(const std::string& line);

}  // namespace eps::test
