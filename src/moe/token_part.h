// The part of its experts' tokens that a stage processes.
#pragma once

#include <cstdint>
#include <string_view>

namespace eps::moe {

enum class TokenPart : uint8_t {
  kAll,
  kLocal,       // tokens of the experts' own rank, which are not dispatched
  kRemote,      // tokens of other ranks
  kFirstHalf,   // the first half of every rank's tokens, rounded up
  kSecondHalf,  // the rest
};

std::string_view to_string(TokenPart part);

// Whether `part` contains token `token` of the `num_tokens` tokens of rank `home`, for experts on rank `expert_rank`.
constexpr bool holds(TokenPart part, int64_t token, int64_t num_tokens, int home, int expert_rank) {
  switch (part) {
    case TokenPart::kAll: return true;
    case TokenPart::kLocal: return home == expert_rank;
    case TokenPart::kRemote: return home != expert_rank;
    case TokenPart::kFirstHalf: return token < (num_tokens + 1) / 2;
    case TokenPart::kSecondHalf: return token >= (num_tokens + 1) / 2;
  }
  return false;
}

// The number of rows in `part` for an expert with `load` rows, of which `local` are tokens of its own rank. The two
// halves are assumed to be equal, because exact numbers would require the whole routing.
constexpr int64_t rows_in_part(int64_t load, int64_t local, TokenPart part) {
  switch (part) {
    case TokenPart::kAll: return load;
    case TokenPart::kLocal: return local;
    case TokenPart::kRemote: return load - local;
    case TokenPart::kFirstHalf: return (load + 1) / 2;
    case TokenPart::kSecondHalf: return load / 2;
  }
  return 0;
}

}  // namespace eps::moe
