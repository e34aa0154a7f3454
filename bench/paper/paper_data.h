// The figures of the EPS-MoE paper (arXiv 2410.12247) that the tables are held against. Nothing here enters a
// prediction; the fit sees table 5 and table 6 alone.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "moe/gemm_kind.h"

namespace eps::paper {

// Table 5: one layer on 4 GPUs, hidden 5120, ms.
inline constexpr std::array<int64_t, 3> kT5Tokens = {3072, 1024, 256};
inline constexpr std::array<int64_t, 2> kT5Inner = {1536, 15360};
struct T5Row {
  int id;
  int num_stages;
  moe::GemmKind kernel;
  bool fp8_wire;
  int gemm_sms;                             // 132: not capped
  std::array<std::array<double, 2>, 3> ms;  // [kT5Tokens, kT5Inner]
};
std::span<const T5Row> table5();

// Cells that break their row's and column's pattern: typing errors by every sign. They are shown, not fitted or
// counted.
bool is_t5_outlier(int id, int64_t m, int64_t inner);

// Table 6: the pipelined layer by SMs of its GEMMs, 16 for communication, ms.
inline constexpr std::array<int, 6> kT6Sms = {132, 124, 116, 108, 100, 92};
struct T6Row {
  int64_t m;
  std::array<double, 6> ms;  // [kT6Sms]
};
std::span<const T6Row> table6();

// Table 7: one layer on 8 GPUs in 2 stages.
struct T7Row {
  int64_t m;
  double eps0, eps1, base_ms, pipelined_ms;
};
std::span<const T7Row> table7();

// Table 2: DeepSeekV2 on 8 GPUs, gain in throughput, %, by sequence length.
inline constexpr std::array<int64_t, 4> kT2Lengths = {1024, 2048, 4096, 8192};
struct T2Row {
  int num_stages;
  std::array<double, 4> gain;  // [kT2Lengths]
};
std::span<const T2Row> table2();

// Tables 3 and 4: change of the time to first token against `base`, %.
struct BatchCell {
  int64_t batch, length;
  double base;  // s (table 3), ms (table 4)
  std::vector<double> change;
};
struct TtftTable {
  std::string_view model;
  int num_ranks;
  int num_layers;                          // 0: the whole model
  std::vector<std::string_view> variants;  // of BatchCell::change
  std::vector<BatchCell> cells;
};
const TtftTable& table3_mixtral();
const TtftTable& table3_dbrx();
const TtftTable& table4_arctic();

}  // namespace eps::paper
