// How a key of a checkpoint's JSON files is treated.
#pragma once

#include <cstdint>
#include <string_view>

namespace eps::arch {

enum class KeyUse : uint8_t {
  kUsed,      // read by the program, which applies or refuses its value
  kHarmless,  // has no effect on the results of this program
  kWarned,    // changes results in other programs, but not in this one: a warning at every load unless it is off
  kRefused,   // results would be wrong without it: an error unless it is off
};

struct KnownKey {
  std::string_view key;
  KeyUse use = KeyUse::kUsed;
  std::string_view why = "";  // shown for kWarned and kRefused: what the key enables
  // The values, as a JSON list, that turn the setting off, besides null, false, [], {} and "".
  std::string_view off = "[]";
};

}  // namespace eps::arch
