// Grouped-query attention on the CPU.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "ops/cpu/packed_linear.h"
#include "ops/cpu/vector_ops.h"
#include "ops/host_step.h"

namespace eps::ops {

// Many new tokens of a sequence are processed in blocks: the keys and values of a block of positions are packed like
// weights, once for each key-value head, and blocks of queries are multiplied with them. A few new tokens read the
// cache directly; their work is divided over heads and pieces of the context.
//
// Order  the sums of a token depend on its position, not on threads or on other tokens, except for the choice between
//        the two forms, which depends on the number of new tokens
class CpuGqa {
 public:
  // `engine`: multiplies blocks; its compute dtype is f32 or bf16.
  CpuGqa(const VectorOps& vec, const CpuEngineChoice& engine, ThreadPool& pool)
      : vec_(vec), engine_(engine), pool_(pool) {}

  // See OpSet::gqa_attention. sinks [num_heads], or null.
  void run(const GqaParams& params, int64_t window, const float* sinks, const float* q,
           std::span<const GqaSequence> sequences, float* out);

 private:
  struct Task {
    const GqaParams& params;
    int64_t window;
    const float* sinks;
    const float* q;  // [T, num_heads * head_dim]
    float* out;      // as q
    // The first position that the token at `position` attends to.
    int64_t first_visible(int64_t position) const {
      return window == 0 || position < window ? 0 : position - window + 1;
    }
  };
  // Keys and values of one head in a block of positions.
  struct PackedBlock {
    std::unique_ptr<PackedLinear> keys;    // [kBlock, head_dim]
    std::unique_ptr<PackedLinear> values;  // [head_dim, kBlock]
  };
  // The state of a softmax over positions that are added in pieces.
  struct RunningSoftmax {
    float top;
    float sum;
  };
  // A token, a key-value head and a piece of the context.
  struct Piece {
    const GqaSequence* sequence;
    int64_t row;  // of q
    int64_t kv_head;
    int64_t begin, end;  // positions
  };

  void run_blocks(const Task& task, const GqaSequence& seq);
  PackedBlock pack_block(const Task& task, const GqaSequence& seq, int64_t kv_head, int64_t first) const;
  void attend_block(const Task& task, const GqaSequence& seq, int64_t kv_head, int64_t first_query, int64_t first_block,
                    std::span<const PackedBlock> blocks) const;
  void run_pieces(const Task& task, std::span<const GqaSequence* const> sequences);
  void attend_piece(const Task& task, const Piece& piece, float* partial) const;
  void finish_rows(const Task& task, int64_t row, int64_t kv_head, float* sums, int64_t ld,
                   std::span<const RunningSoftmax> softmax) const;

  const VectorOps& vec_;
  CpuEngineChoice engine_;
  ThreadPool& pool_;
};

}  // namespace eps::ops
