// The table of lanes and the table of ops. A row contains all properties of a kind of op that planning uses.
//
// The search's estimates, the work of the virtual clock, reports, the checks of a plan and the names in its files are
// all derived from these tables. A new op or lane needs an enumerator in plan/plan.h and a row here; an op also needs a
// function in plan/op_cost.cpp that computes its time.
#pragma once

#include <array>
#include <string_view>

#include "plan/plan.h"

namespace eps::plan {

struct LaneRow {
  Lane lane;
  std::string_view name;
  // The lane's ops are messages. They begin when every rank has reached them, share the rank's link with each other,
  // and slow compute down meanwhile.
  bool moves_rows;
};

inline constexpr std::array<LaneRow, kNumLanes> kLaneTable = {
    {{Lane::kCompute, "compute", false}, {Lane::kDispatch, "dispatch", true}, {Lane::kCombine, "combine", true}}};

constexpr const LaneRow& lane_row(Lane lane) { return kLaneTable[static_cast<size_t>(lane)]; }

struct OpTerms;  // plan/op_cost.h
struct OpLoad;

// The time in µs that each op takes if it runs alone, without hand-overs between lanes. Defined in plan/op_cost.cpp.
double collective_us(const OpTerms& terms, const OpLoad& load);
double dispatch_us(const OpTerms& terms, const OpLoad& load);
double combine_us(const OpTerms& terms, const OpLoad& load);
double shared_us(const OpTerms& terms, const OpLoad& load);
double gate_up_us(const OpTerms& terms, const OpLoad& load);
double silu_mul_us(const OpTerms& terms, const OpLoad& load);
double down_us(const OpTerms& terms, const OpLoad& load);
double reduce_us(const OpTerms& terms, const OpLoad& load);
double finish_us(const OpTerms& terms, const OpLoad& load);

// How an op and concurrent messages slow each other down.
enum class OpRates : uint8_t {
  kAlone,       // no slowdown: the op is short, or no message runs beside it
  kDenseGemm,   // like dense GEMMs
  kStageGemms,  // like the mixture of kernels that the stage's projections use
};

// The memory traffic of an op in addition to its GEMM, at a named rate of the profile.
struct MemoryPass {
  std::string_view cost = {};  // key of HardwareProfile::ops; empty: negligible
  double passes = 0;           // how often a row is read or written
  bool inner = false;          // rows have an expert's inner size instead of the hidden size
};

struct OpRow {
  OpKind kind;
  std::string_view name;
  Lane lane;
  bool of_stage;     // one per stage; otherwise one per layer, or for kShared one per share of the tokens
  bool awaits_lane;  // if lanes run concurrently, it waits for an op of another lane, which costs a hand-over
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

// The table is indexed by enumerator, so its rows must have the same order.
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

}  // namespace eps::plan
