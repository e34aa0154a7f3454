// The bf16 GEMM engine for CPUs with bf16 instructions: oneDNN primitives over weights packed once, in slices of N.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/cpu/packed_linear.h"
#include "tensor/tensor.h"

namespace eps {

// A oneDNN engine and the primitives made so far, shared by the weights of a model: a model has hundreds of weights and
// a handful of shapes. Defined in the source, so that oneDNN's header stays out of ours.
// Threads any
class OneDnnContext;

std::shared_ptr<OneDnnContext> make_onednn_context();

// Caps the instruction sets of oneDNN at those of cpu_features(). Comes before anything else that is asked of oneDNN.
// Threads any
// Edge    too late, and without effect, where a program that embeds epsmoe has used oneDNN before
void cap_onednn_isa();

// Packs [N_i, K] parts, stacked along N and rounded to bf16, for products with bf16 rows.
// Errors  kInternal when oneDNN has nothing faster than its reference code for the shape on this CPU
std::unique_ptr<PackedLinear> pack_onednn(std::span<const TensorView> parts, std::shared_ptr<OneDnnContext> context,
                                          ThreadPool* pool);

// Rows a product of m rows is computed with: oneDNN is fast only for numbers of rows it was told beforehand, so there
// is one primitive for each multiple of 16 up to 256, and the rows between are zeros.
int64_t onednn_row_bucket(int64_t m);

// Names of the oneDNN implementations in use, e.g. "brg:avx512_core_amx_bf16", without repeats.
std::vector<std::string> onednn_implementations(const OneDnnContext& context);

}  // namespace eps
