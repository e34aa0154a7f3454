// The bf16 GEMM engine for CPUs with bf16 instructions: oneDNN primitives over prepacked weights, in slices of N.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/cpu/packed_linear.h"
#include "tensor/tensor.h"

namespace eps::ops {

// A oneDNN engine and the primitives that were created so far. All weights of a model share one context, because a
// model has hundreds of weights but only a few shapes. Defined in the source file, so that this header does not include
// oneDNN's.
// Threads any
class OneDnnContext;

std::shared_ptr<OneDnnContext> make_onednn_context();

// Limits oneDNN to the instruction sets in cpu_features(). Must be called before any other use of oneDNN.
// Threads any
// Edge    has no effect if a program that embeds epsmoe has used oneDNN before
void cap_onednn_isa();

// Packs [N_i, K] parts, stacked along N and rounded to bf16, for products with bf16 rows.
// Errors  kInternal if oneDNN has only its reference implementation for the shape on this CPU
std::unique_ptr<PackedLinear> pack_onednn(std::span<const TensorView> parts, std::shared_ptr<OneDnnContext> context,
                                          ThreadPool* pool);

// The number of rows that a product of m rows is computed with. oneDNN is fast only for a number of rows that is known
// in advance, so there is one primitive for each multiple of 16 up to 256, and additional rows are zeros.
int64_t onednn_row_bucket(int64_t m);

// The names of the oneDNN implementations in use, e.g. "brg:avx512_core_amx_bf16", without duplicates.
std::vector<std::string> onednn_implementations(const OneDnnContext& context);

}  // namespace eps::ops
