// The table of lanes and the table of ops: everything planning knows about a kind of op, in one row.
//
// What the search estimates, what the virtual clock runs and what reports show all come from here; so do the checks of
// a plan and the words of its files. A new op or lane is an enumerator of plan/plan.h and a row of its table, and for
// an op a function in plan/op_cost.cpp that says what it takes.
#pragma once

#include <array>
#include <string_view>

#include "plan/plan.h"

namespace eps {

struct LaneRow {
  Lane lane;
  std::string_view name;
  // Its ops are messages: they begin when every rank has come to them, share the rank's link with each other, and slow
  // compute down while they move.
  bool moves_rows;
};

inline constexpr std::array<LaneRow, kNumLanes> kLaneTable = {
    {{Lane::kCompute, "compute", false}, {Lane::kDispatch, "dispatch", true}, {Lane::kCombine, "combine", true}}};

constexpr const LaneRow& lane_row(Lane lane) { return kLaneTable[static_cast<size_t>(lane)]; }

struct OpTerms;  // plan/op_cost.h
struct OpLoad;

// What each op takes alone, in µs, without a hand-over between lanes. Defined in plan/op_cost.cpp.
double collective_us(const OpTerms& terms, const OpLoad& load);
double dispatch_us(const OpTerms& terms, const OpLoad& load);
double combine_us(const OpTerms& terms, const OpLoad& load);
double shared_us(const OpTerms& terms, const OpLoad& load);
double gate_up_us(const OpTerms& terms, const OpLoad& load);
double silu_mul_us(const OpTerms& terms, const OpLoad& load);
double down_us(const OpTerms& terms, const OpLoad& load);
double reduce_us(const OpTerms& terms, const OpLoad& load);
double finish_us(const OpTerms& terms, const OpLoad& load);

// How an op gets on with messages beside it: as its GEMM kernels do, or undisturbed.
enum class OpRates : uint8_t {
  kAlone,       // not worth modelling: short, or nothing runs beside it
  kDenseGemm,   // as dense GEMMs
  kStageGemms,  // as the mixture of kernels that the stage's projections take
};

// What an op moves through memory beside its GEMM, at a rate that the profile measured under a name.
struct MemoryPass {
  std::string_view cost = {};  // key of HardwareProfile::ops; empty: nothing worth counting
  double passes = 0;           // times that a row is read or written
  bool inner = false;          // rows as wide as an expert's inner size; otherwise as the hidden size
};

struct OpRow {
  OpKind kind;
  std::string_view name;
  Lane lane;
  bool of_stage;     // one in each stage; otherwise one in the layer, or for kShared one for each share of the tokens
  bool awaits_lane;  // where lanes run side by side, it waits for another lane's op and pays for the hand-over
  OpRates rates;
  MemoryPass memory;
  double (*us)(const OpTerms&, const OpLoad&);
};

inline constexpr std::array<OpRow, kNumOpKinds> kOpTable = {{
    {OpKind::kEnter, "enter", Lane::kDispatch, false, false, OpRates::kAlone, {}, collective_us},
    {OpKind::kDispatch, "dispatch", Lane::kDispatch, true, false, OpRates::kAlone, {}, dispatch_us},
    {OpKind::kShared, "shared", Lane::kCompute, false, false, OpRates::kDenseGemm, {}, shared_us},
    {OpKind::kGateUp, "gate_up", Lane::kCompute, true, true, OpRates::kStageGemms, {"gather", 2}, gate_up_us},
    {OpKind::kSiluMul,
     "silu_mul",
     Lane::kCompute,
     true,
     false,
     OpRates::kStageGemms,
     {"silu_mul", 3, true},
     silu_mul_us},
    {OpKind::kDown, "down", Lane::kCompute, true, false, OpRates::kStageGemms, {}, down_us},
    {OpKind::kReduce, "reduce", Lane::kCompute, true, false, OpRates::kStageGemms, {"reduce", 3}, reduce_us},
    {OpKind::kCombine, "combine", Lane::kCombine, true, true, OpRates::kAlone, {}, combine_us},
    {OpKind::kFinish, "finish", Lane::kCompute, false, true, OpRates::kAlone, {"finish", 3}, finish_us},
    {OpKind::kLeave, "leave", Lane::kCombine, false, false, OpRates::kAlone, {}, collective_us},
}};

constexpr const OpRow& op_row(OpKind kind) { return kOpTable[static_cast<size_t>(kind)]; }

// Rows are looked up by their place, so they stand in the order of the enumerators.
consteval bool is_in_order() {
  for (size_t i = 0; i < kOpTable.size(); ++i) {
    if (static_cast<size_t>(kOpTable[i].kind) != i) return false;
  }
  for (size_t i = 0; i < kLaneTable.size(); ++i) {
    if (static_cast<size_t>(kLaneTable[i].lane) != i) return false;
  }
  return true;
}
static_assert(is_in_order());

}  // namespace eps
