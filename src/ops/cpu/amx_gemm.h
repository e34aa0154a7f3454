// The bf16 GEMM engine for CPUs with AMX: bf16 weights and activations, f32 accumulation in tile registers.
#pragma once

#include <memory>
#include <span>

#include "ops/cpu/packed_linear.h"
#include "tensor/tensor.h"

namespace eps::ops {

// Whether this build contains the AMX kernels. Callers must check separately whether the CPU supports AMX.
bool has_amx_kernels();

// Packs [N_i, K] parts, stacked along N, as bf16 (f32 and f16 are rounded).
//
// Row invariance  every element of the result is accumulated over pairs of k in ascending order, starting from zero, in
//                 one tile register. Between blocks of K the sum is stored to y and loaded again, which is exact. The
//                 result therefore does not depend on how many rows share a tile, or which.
std::unique_ptr<PackedLinear> pack_amx(std::span<const TensorView> parts, ThreadPool* pool);

// One panel of packed weights has 32 columns, each with its K bf16 weights. Element (column, k) is in tile (k / 32,
// column / 16), at row (k % 32) / 2 and position 2 * (column % 16) + k % 2, because the tile instruction multiplies
// pairs along k. K is padded with zeros to whole tiles. Packing does not use AMX, so the layout is tested on every CPU.
inline constexpr int64_t kAmxPanelColumns = 32;
inline constexpr int64_t amx_panel_elements(int64_t k) { return (k + 31) / 32 * 1024; }
void pack_amx_panel(const std::byte* const* rows, int64_t k, bf16* to);

}  // namespace eps::ops
