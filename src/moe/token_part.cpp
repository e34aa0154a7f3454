#include "moe/token_part.h"

namespace eps::moe {

std::string_view to_string(TokenPart part) {
  switch (part) {
    case TokenPart::kAll: return "all";
    case TokenPart::kLocal: return "local";
    case TokenPart::kRemote: return "remote";
    case TokenPart::kFirstHalf: return "first half";
    case TokenPart::kSecondHalf: return "second half";
  }
  return "?";
}

}  // namespace eps::moe
