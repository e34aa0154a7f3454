#include "report/json_words.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "plan/op_table.h"

namespace eps::report {
namespace {

constexpr std::array kKernels = {moe::GemmKind::kDense, moe::GemmKind::kGrouped};

// The words of an enumeration are the results of its to_string, so that there is only one list to maintain.
template <typename T, size_t N, typename ToWord>
T read_word(const io::JsonObject& object, std::string_view key, const std::array<T, N>& values, ToWord to_word) {
  const auto word = object.get<std::string>(key);
  std::string wanted;
  for (const T value : values) {
    if (word == to_word(value)) return value;
    wanted += fmt::format("{}{}", wanted.empty() ? "one of " : ", ", to_word(value));
  }
  object.reject(key, wanted);
}

// The row of a table with that name.
template <typename Row, size_t N>
const Row& read_row(const io::JsonObject& object, std::string_view key, const std::array<Row, N>& table) {
  std::array<const Row*, N> rows = {};
  for (size_t i = 0; i < N; ++i) rows[i] = &table[i];
  return *read_word(object, key, rows, [](const Row* row) { return row->name; });
}

template <typename T, size_t N>
T read_word(const io::JsonObject& object, std::string_view key, const std::array<T, N>& values) {
  return read_word(object, key, values, [](T value) { return to_string(value); });
}

}  // namespace

std::string_view word_of(plan::Verdict verdict) {
  switch (verdict) {
    case plan::Verdict::kChosen: return "chosen";
    case plan::Verdict::kSlower: return "slower";
    case plan::Verdict::kTooBig: return "too_big";
    case plan::Verdict::kNotAsked: return "not_asked";
    case plan::Verdict::kSlowerModel: return "slower_model";
    case plan::Verdict::kCannotRun: return "cannot_run";
  }
  return "?";
}

DType read_dtype(const io::JsonObject& object, std::string_view key) {
  const std::optional<DType> dtype = parse_dtype(object.get<std::string>(key));
  if (!dtype) object.reject(key, "a dtype such as bf16 or fp8");
  return *dtype;
}

plan::Strategy read_strategy(const io::JsonObject& object, std::string_view key) {
  return read_word(object, key, std::array{plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp});
}

plan::Policy read_policy(const io::JsonObject& object, std::string_view key) {
  return read_word(object, key,
                   std::array{plan::Policy::kSerial, plan::Policy::kEps, plan::Policy::kMicrobatch, plan::Policy::kTp});
}

plan::Transport read_transport(const io::JsonObject& object, std::string_view key) {
  return read_word(object, key, std::array{plan::Transport::kMessages, plan::Transport::kFlags});
}

plan::Lane read_lane(const io::JsonObject& object, std::string_view key) {
  return read_row(object, key, plan::kLaneTable).lane;
}

plan::OpKind read_op_kind(const io::JsonObject& object, std::string_view key) {
  return read_row(object, key, plan::kOpTable).kind;
}

moe::TokenPart read_token_part(const io::JsonObject& object, std::string_view key) {
  return read_word(object, key,
                   std::array{moe::TokenPart::kAll, moe::TokenPart::kLocal, moe::TokenPart::kRemote,
                              moe::TokenPart::kFirstHalf, moe::TokenPart::kSecondHalf});
}

plan::Verdict read_verdict(const io::JsonObject& object, std::string_view key) {
  return read_word(object, key,
                   std::array{plan::Verdict::kChosen, plan::Verdict::kSlower, plan::Verdict::kTooBig,
                              plan::Verdict::kNotAsked, plan::Verdict::kSlowerModel, plan::Verdict::kCannotRun},
                   word_of);
}

OrderedJson kernels_json(const std::vector<moe::GemmKind>& kernels, size_t num_ranks) {
  const bool agree = std::ranges::all_of(kernels, [&](moe::GemmKind kind) { return kind == kernels.front(); });
  if (agree && !kernels.empty() && kernels.size() == num_ranks) return moe::to_string(kernels.front());
  OrderedJson out = OrderedJson::array();
  for (const moe::GemmKind kind : kernels) out.push_back(moe::to_string(kind));
  return out;
}

std::vector<moe::GemmKind> read_kernels(const io::JsonObject& object, std::string_view key, size_t num_ranks) {
  const io::Json* value = object.find(key);
  if (value != nullptr && value->is_string()) {
    return std::vector<moe::GemmKind>(num_ranks, read_word(object, key, kKernels));
  }
  std::vector<moe::GemmKind> out;
  for (const std::string& word : object.get<std::vector<std::string>>(key)) {
    const auto kind = std::ranges::find(kKernels, word, [](moe::GemmKind k) { return moe::to_string(k); });
    if (kind == kKernels.end()) object.reject(key, "dense or grouped, one for all ranks or a list of one for each");
    out.push_back(*kind);
  }
  return out;
}

OrderedJson wire_json(const plan::Wire& wire) {
  return {{"dispatch", to_string(wire.dispatch)}, {"combine", to_string(wire.combine)}};
}

plan::Wire read_wire(const io::JsonObject& object) {
  refuse_unknown_keys(object, {"dispatch", "combine"});
  return {read_dtype(object, "dispatch"), read_dtype(object, "combine")};
}

void refuse_unknown_keys(const io::JsonObject& object, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.value().items()) {
    if (std::ranges::find(known, std::string_view(key)) != known.end()) continue;
    fail(ErrorKind::kInput, object.where(),
         {.what = fmt::format("unknown key \"{}\"", object.path_of(key)),
          .got = io::describe_json(value),
          .wanted = fmt::format("one of {}", fmt::join(known, ", ")),
          .hint = "a file of this version of epsmoe"});
  }
}

void require_version(const io::JsonObject& object, int version) {
  if (object.get<int64_t>("version") != version) object.reject("version", std::to_string(version));
}

std::vector<int64_t> read_counts(const io::JsonObject& object, std::string_view key) {
  auto counts = object.get<std::vector<int64_t>>(key);
  for (const int64_t count : counts) {
    if (count < 0 || count > kMaxCount) {
      fail(ErrorKind::kInput, object.where(),
           {.what = fmt::format("key \"{}\"", object.path_of(key)),
            .got = fmt::format("{} in the list", count),
            .wanted = "counts from 0 to 2^53",
            .hint = ""});
    }
  }
  return counts;
}

std::vector<int64_t> read_counts(const io::JsonObject& object, std::string_view key, size_t size,
                                 std::string_view what) {
  auto counts = read_counts(object, key);
  if (counts.size() != size) object.reject(key, fmt::format("a list of {}: one for each {}", size, what));
  return counts;
}

}  // namespace eps::report
