// How the tokens of a step are distributed over the ranks of a decoder, and what the ranks exchange around its blocks.
//
//            a rank's attention     its residual stream    around a block with split weights
//   dp+ep    its own sequences      the same               nothing: no weights are split
//   tp+…     its heads of all       a share of all         before: every rank gets the (normalised) inputs of all
//   tokens;
//            sequences              tokens                 after: the ranks' partial sums are added, each on its share
//
// So norms and the router run once for each token, and an all-reduce is the two exchanges with the norm in between
// (ADR 0019).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "ops/op_set.h"
#include "plan/problem.h"

namespace eps::model {

// The exchanges around one block of the decoder: attention, or a dense FFN.
class BlockExchange {
 public:
  virtual ~BlockExchange() = default;
  // x [own tokens, W] -> the input of the block, for all tokens that it computes.
  virtual TensorView enter(TensorView x) = 0;
  // Where the block writes its output, given where the outputs of the rank's own tokens belong. Every row has to be
  // written in full.
  virtual MutableTensorView output(MutableTensorView out) = 0;
  // Completes out [own tokens, H] once the block has written its output.
  virtual void leave(MutableTensorView out) = 0;
};

// A row of logits that a step needs, and the row of hidden states that it is computed from.
struct LogitRow {
  size_t sequence;
  int64_t position;
  int64_t row;
  int home_rank;  // the rank that computes it
};

class TokenSplit {
 public:
  virtual ~TokenSplit() = default;

  // Begins a step with the tokens of the sequences that belong to each rank. `local_tokens`: those of this rank's
  // chunks. Returns the tokens of each rank's residual stream.
  //
  // Errors  kInternal: the numbers disagree
  virtual std::span<const int64_t> begin_step(std::span<const int64_t> tokens_per_rank, int64_t local_tokens) = 0;
  // The first of this rank's own tokens among the rows of its step.
  virtual int64_t first_own() const = 0;

  virtual BlockExchange& attention() = 0;
  virtual BlockExchange& dense_ffn() = 0;
  virtual BlockExchange& residual_ffn() = 0;  // the dense FFN beside the experts

  // Normalises rows [T, W] f32 or act, in place, by the root mean square of the whole row, of which every rank that
  // splits attention has W elements. weight [W] f32
  virtual void rms_norm_of_heads(MutableTensorView rows, TensorView weight, float eps) = 0;

  // Brings rows of `hidden` [own tokens, H] f32 to their home ranks. `rows` are those of the whole step, the same on
  // every rank; afterwards they are this rank's, with their rows in the returned view.
  virtual TensorView bring_home(TensorView hidden, std::vector<LogitRow>& rows) = 0;
};

// `ops` and `comm` outlive the object. Ranks that split weights work in host memory.
std::unique_ptr<TokenSplit> make_token_split(plan::Strategy strategy, ops::OpSet& ops, comm::Communicator& comm);

}  // namespace eps::model
