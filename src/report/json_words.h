// Words and small parts that the JSON formats of problems and plans share.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "plan/plan.h"

namespace eps::report {

using OrderedJson = nlohmann::ordered_json;  // keeps keys in the order in which they are easiest to read

std::string_view word_of(plan::Verdict verdict);  // "chosen", "slower", "too_big", "not_asked", "cannot_run"

// The value that the string `key` names.  Errors  kInput, naming the key, the word and the valid words
DType read_dtype(const io::JsonObject& object, std::string_view key);
plan::Strategy read_strategy(const io::JsonObject& object, std::string_view key);
plan::Policy read_policy(const io::JsonObject& object, std::string_view key);
plan::Transport read_transport(const io::JsonObject& object, std::string_view key);
plan::Lane read_lane(const io::JsonObject& object, std::string_view key);
plan::OpKind read_op_kind(const io::JsonObject& object, std::string_view key);
moe::TokenPart read_token_part(const io::JsonObject& object, std::string_view key);
plan::Verdict read_verdict(const io::JsonObject& object, std::string_view key);

// A string if all `num_ranks` ranks have the same kernel, else a list.
OrderedJson kernels_json(const std::vector<moe::GemmKind>& kernels, size_t num_ranks);
std::vector<moe::GemmKind> read_kernels(const io::JsonObject& object, std::string_view key, size_t num_ranks);

OrderedJson wire_json(const plan::Wire& wire);
plan::Wire read_wire(const io::JsonObject& object);

// Errors  kInput, naming the first key that is not one of `known`
void refuse_unknown_keys(const io::JsonObject& object, std::initializer_list<std::string_view> known);
// Errors  kInput unless the key "version" is `version`
void require_version(const io::JsonObject& object, int version);

// Whole numbers of `key` from 0 to 2^53; other JSON readers lose digits of larger ones.
std::vector<int64_t> read_counts(const io::JsonObject& object, std::string_view key);
// The same, exactly `size` numbers; `what` describes what there is one number for.
std::vector<int64_t> read_counts(const io::JsonObject& object, std::string_view key, size_t size,
                                 std::string_view what);

inline constexpr int64_t kMaxCount = int64_t{1} << 53;

}  // namespace eps::report
