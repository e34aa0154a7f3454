// The f32 GEMM engine: weights stay in their stored dtype, packed into panels, and are widened inside the kernel.
//
// Row invariance is the rule everything here keeps: an element of the result is one chain acc = acc + x[k] * w[k] over
// k = 0, 1, 2, ... in f32, starting from zero. Blocks over K store the chain to y and load it back, which loses no bit.
// So tiles, blocks, threads and neighbours change the speed and never the result.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "ops/cpu/packed_linear.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace eps {

// One piece of y = x * W^T: rows [0, m) of x against panels [panel_begin, panel_end).
struct PanelBlock {
  const void* panels;  // [num_panels, K, panel_width] of `dtype`, 64-byte aligned, columns in panel_lane order
  DType dtype;
  int64_t n;  // columns of the whole weight; the last panel is padded with zeros beyond it
  int64_t k;
  int64_t panel_begin;
  int64_t panel_end;
  const float* x;  // [m, K], rows ldx apart
  int64_t ldx;
  float* y;  // [m, n], rows ldy apart; only columns of the panels asked for are written
  int64_t ldy;
  int64_t m;
};

// The kernels of one instruction set.
struct PanelKernels {
  const char* isa;         // "avx512", "avx2", "portable"
  int64_t panel_width;     // columns of a panel: two vectors
  int64_t rows_per_block;  // rows of x worth keeping near while the weights pass: split larger m into these
  void (*run)(const PanelBlock& block);
};

// Where column `column` of a panel stands among the panel's `width` elements of one k. The two vectors of bf16 are
// interleaved: then a 32-bit lane holds one element of each, and widening both is one shift and one mask.
constexpr int64_t panel_lane(DType dtype, int64_t column, int64_t width) {
  if (dtype != DType::kBF16) return column;
  const int64_t half = width / 2;
  return column < half ? 2 * column : 2 * (column - half) + 1;
}

const PanelKernels& panel_kernels_portable();
// Null where the program was not built for the instruction set. Whether this CPU has it is the caller's question.
const PanelKernels* panel_kernels_avx2();
const PanelKernels* panel_kernels_avx512();
// By name, as CpuEngineChoice::isa spells it; the CPU has to have it.
const PanelKernels& panel_kernels(std::string_view isa);

// Packs [N_i, K] parts, stacked along N. Parts of one dtype keep it; parts of several are widened to f32.
std::unique_ptr<PackedLinear> pack_panels(std::span<const TensorView> parts, const PanelKernels& kernels,
                                          ThreadPool* pool);

}  // namespace eps
