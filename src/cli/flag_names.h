// Turns the names of fields in library errors into the flags that set them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "epsmoe/error.h"

namespace eps::cli {

// The flag of the command that was parsed last that sets the library's field `field` ("max_tokens" -> "--max-tokens");
// empty where it has none.
std::string flag_of(const CLI::App& app, std::string_view field);

// The error in the words of the command line: the field that a usage error is about, and every `field` in backquotes,
// become flags. Other names stay.
Error with_flags(const CLI::App& app, const Error& error);

}  // namespace eps::cli
