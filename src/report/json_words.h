// Words and small parts that the JSON formats of problems and plans share.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "plan/plan.h"

namespace eps {

using OrderedJson = nlohmann::ordered_json;  // keeps keys in the order in which they are easiest to read

std::string_view word_of(Verdict verdict);  // "chosen", "slower", "too_big", "not_asked", "cannot_run"

// The value that the string `key` names.  Errors  kInput, naming the key, the word and the valid words
DType read_dtype(const JsonObject& object, std::string_view key);
Strategy read_strategy(const JsonObject& object, std::string_view key);
Policy read_policy(const JsonObject& object, std::string_view key);
Lane read_lane(const JsonObject& object, std::string_view key);
OpKind read_op_kind(const JsonObject& object, std::string_view key);
TokenPart read_token_part(const JsonObject& object, std::string_view key);
Verdict read_verdict(const JsonObject& object, std::string_view key);

// A string if all `num_ranks` ranks have the same kernel, else a list.
OrderedJson kernels_json(const std::vector<GemmKind>& kernels, size_t num_ranks);
std::vector<GemmKind> read_kernels(const JsonObject& object, std::string_view key, size_t num_ranks);

OrderedJson wire_json(const Wire& wire);
Wire read_wire(const JsonObject& object);

// Errors  kInput, naming the first key that is not one of `known`
void refuse_unknown_keys(const JsonObject& object, std::initializer_list<std::string_view> known);
// Errors  kInput unless the key "version" is `version`
void require_version(const JsonObject& object, int version);

// Whole numbers of `key` from 0 to 2^53; other JSON readers lose digits of larger ones.
std::vector<int64_t> read_counts(const JsonObject& object, std::string_view key);
// The same, exactly `size` numbers; `what` describes what there is one number for.
std::vector<int64_t> read_counts(const JsonObject& object, std::string_view key, size_t size, std::string_view what);

inline constexpr int64_t kMaxCount = int64_t{1} << 53;

}  // namespace eps
