// Replaces the names of fields in library errors by the flags that set them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

#include "epsmoe/error.h"

namespace eps::cli {

// Returns the flag that sets the library's field `field` ("max_tokens" -> "--max-tokens") in the command that was
// parsed last, or an empty text if the command has none.
std::string flag_of(const CLI::App& app, std::string_view field);

// Returns `text` with every `field` in backquotes replaced by its flag, if it has one.
std::string with_flags(const CLI::App& app, std::string_view text);

// Rewrites an error for the command line: the field that a usage error is about and every `field` in backquotes are
// replaced by their flags. Other names stay.
Error with_flags(const CLI::App& app, const Error& error);

}  // namespace eps::cli
