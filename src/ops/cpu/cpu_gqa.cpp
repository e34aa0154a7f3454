#include "ops/cpu/cpu_gqa.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cpu/convert.h"

namespace eps::ops {
namespace {

// Positions of a packed block: a multiple of every engine's columns, and small enough that a block's keys and values
// stay in the L2 cache.
constexpr int64_t kBlock = 128;
// Rows (queries times heads of a group) that are multiplied with a block at a time.
constexpr int64_t kBlockRows = 128;
// Sequences with this many new tokens or more are processed in blocks. Below, packing the context would take longer
// than reading it for every token.
constexpr int64_t kFewestForBlocks = 8;
// Positions of a piece of the context. Fixed, so that sums do not depend on the number of threads; a piece takes tens
// of microseconds, far longer than handing it to a thread.
constexpr int64_t kPiece = 512;
// Positions that are widened to f32 at a time: 32 kB for heads of 128.
constexpr int64_t kWidened = 64;

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Copies `count` elements, starting with element `first` of a cache, to f32.
void widen(const TensorView& cache, int64_t first, float* to, int64_t count) {
  if (cache.dtype() == DType::kBF16) {
    convert_bf16_to_f32(cache.as<const bf16>() + first, to, count);
  } else {
    std::copy_n(cache.as<const float>() + first, count, to);
  }
}

// The rows [begin, end) of a head in f32: in the cache itself, or in `buffer` if the cache is bf16.
struct HeadRows {
  const float* data;
  int64_t ld;
};
HeadRows head_rows(const TensorView& cache, int64_t head, int64_t dim, int64_t begin, int64_t end, float* buffer) {
  const int64_t width = cache.dim(1);
  if (cache.dtype() == DType::kF32) return {cache.as<const float>() + begin * width + head * dim, width};
  for (int64_t p = begin; p < end; ++p) widen(cache, p * width + head * dim, buffer + (p - begin) * dim, dim);
  return {buffer, dim};
}

// A buffer of `count` floats as the input of an engine: as it is, or rounded to bf16 in `narrow`.
const void* as_input(const PackedLinear& weight, const float* values, int64_t count, bf16* narrow) {
  if (weight.input_dtype() == DType::kF32) return values;
  convert_f32_to_bf16(values, narrow, count);
  return narrow;
}

}  // namespace

void CpuGqa::run(const GqaParams& params, int64_t window, const float* sinks, const float* q,
                 std::span<const GqaSequence> sequences, float* out) {
  const Task task{params, window, sinks, q, out};
  std::vector<const GqaSequence*> few;
  for (const GqaSequence& seq : sequences) {
    if (seq.q_count == 0) continue;
    if (seq.q_count >= kFewestForBlocks) {
      run_blocks(task, seq);
    } else {
      few.push_back(&seq);
    }
  }
  if (!few.empty()) run_pieces(task, few);
}

void CpuGqa::run_blocks(const Task& task, const GqaSequence& seq) {
  const GqaParams& p = task.params;
  const int64_t first_block = task.first_visible(seq.context - seq.q_count) / kBlock;
  const int64_t num_blocks = (seq.context + kBlock - 1) / kBlock - first_block;
  std::vector<PackedBlock> blocks(static_cast<size_t>(p.num_kv_heads * num_blocks));
  pool_.parallel_for(p.num_kv_heads * num_blocks, [&](int64_t i) {
    blocks[static_cast<size_t>(i)] = pack_block(task, seq, i / num_blocks, (first_block + i % num_blocks) * kBlock);
  });
  const int64_t queries = std::max<int64_t>(1, kBlockRows / p.group());
  const int64_t query_blocks = (seq.q_count + queries - 1) / queries;
  pool_.parallel_for(p.num_kv_heads * query_blocks, [&](int64_t i) {
    // The last queries have the most work, so they come first.
    const int64_t kv_head = i % p.num_kv_heads;
    const int64_t block = query_blocks - 1 - i / p.num_kv_heads;
    attend_block(task, seq, kv_head, block * queries, first_block,
                 std::span(blocks).subspan(static_cast<size_t>(kv_head * num_blocks), static_cast<size_t>(num_blocks)));
  });
}

// Positions beyond the context are packed as zeros.
CpuGqa::PackedBlock CpuGqa::pack_block(const Task& task, const GqaSequence& seq, int64_t kv_head, int64_t first) const {
  pool_.check_stop();
  const int64_t dim = task.params.head_dim;
  const int64_t count = std::min(kBlock, seq.context - first);
  const int64_t width = seq.keys.dim(1);
  std::vector<float> keys(static_cast<size_t>(kBlock * dim), 0.0F);
  std::vector<float> values(static_cast<size_t>(dim * kBlock), 0.0F);
  std::vector<float> row(static_cast<size_t>(dim));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = (first + i) * width + kv_head * dim;
    widen(seq.keys, begin, keys.data() + i * dim, dim);
    widen(seq.values, begin, row.data(), dim);
    for (int64_t d = 0; d < dim; ++d) values[static_cast<size_t>(d * kBlock + i)] = row[static_cast<size_t>(d)];
  }
  const TensorView key_view(keys.data(), DType::kF32, {kBlock, dim});
  const TensorView value_view(values.data(), DType::kF32, {dim, kBlock});
  return {pack_linear(std::span(&key_view, 1), engine_), pack_linear(std::span(&value_view, 1), engine_)};
}

void CpuGqa::attend_block(const Task& task, const GqaSequence& seq, int64_t kv_head, int64_t first_query,
                          int64_t first_block, std::span<const PackedBlock> blocks) const {
  const GqaParams& p = task.params;
  const int64_t dim = p.head_dim;
  const int64_t group = p.group();
  const int64_t queries = std::min(std::max<int64_t>(1, kBlockRows / group), seq.q_count - first_query);
  const int64_t rows = queries * group;  // row r is query r / group with head r % group of the key-value head
  const int64_t first_position = seq.context - seq.q_count + first_query;
  std::vector<float> q(static_cast<size_t>(rows * dim));
  for (int64_t i = 0; i < queries; ++i) {
    const float* from = task.q + (seq.q_begin + first_query + i) * p.q_width() + kv_head * group * dim;
    for (int64_t j = 0; j < group * dim; ++j) q[static_cast<size_t>(i * group * dim + j)] = from[j] * p.softmax_scale;
  }
  std::vector<bf16> narrow(static_cast<size_t>(rows * std::max(dim, kBlock)));
  std::vector<bf16> narrow_q(static_cast<size_t>(rows * dim));
  const void* x = as_input(*blocks.front().keys, q.data(), rows * dim, narrow_q.data());
  std::vector<float> scores(static_cast<size_t>(rows * kBlock));
  std::vector<float> product(static_cast<size_t>(rows * dim));
  std::vector<float> sums(static_cast<size_t>(rows * dim), 0.0F);
  std::vector<RunningSoftmax> softmax(static_cast<size_t>(rows), {kLowest, 0.0F});
  const int64_t begin_block = task.first_visible(first_position) / kBlock;
  const int64_t end_block = (first_position + queries - 1) / kBlock + 1;
  for (int64_t b = begin_block; b < end_block; ++b) {
    pool_.check_stop();
    const PackedBlock& block = blocks[static_cast<size_t>(b - first_block)];
    block.keys->run_block(x, dim, scores.data(), kBlock, rows, 0, kBlock);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = scores.data() + r * kBlock;
      const int64_t position = first_position + r / group;
      const int64_t begin = std::clamp<int64_t>(task.first_visible(position) - b * kBlock, 0, kBlock);
      const int64_t end = std::clamp<int64_t>(position + 1 - b * kBlock, 0, kBlock);
      if (begin >= end) {
        std::fill_n(row, kBlock, 0.0F);
        continue;
      }
      RunningSoftmax& state = softmax[static_cast<size_t>(r)];
      const float top = std::max(state.top, vec_.max(row + begin, end - begin));
      const float keep = std::exp(state.top - top);
      state = {top, state.sum * keep + vec_.exp_sum(row + begin, top, end - begin)};
      if (keep != 1.0F) vec_.scale(sums.data() + r * dim, keep, dim);
      std::fill(row, row + begin, 0.0F);
      std::fill(row + end, row + kBlock, 0.0F);
    }
    const void* weights = as_input(*block.values, scores.data(), rows * kBlock, narrow.data());
    block.values->run_block(weights, kBlock, product.data(), dim, rows, 0, dim);
    vec_.add(sums.data(), product.data(), rows * dim);
  }
  for (int64_t i = 0; i < queries; ++i) {
    finish_rows(task, seq.q_begin + first_query + i, kv_head, sums.data() + i * group * dim, dim,
                std::span(softmax).subspan(static_cast<size_t>(i * group), static_cast<size_t>(group)));
  }
}

// Writes the output of the heads of one key-value head: sums [group, head_dim] divided by the sum of all weights.
void CpuGqa::finish_rows(const Task& task, int64_t row, int64_t kv_head, float* sums, int64_t ld,
                         std::span<const RunningSoftmax> softmax) const {
  const GqaParams& p = task.params;
  for (int64_t j = 0; j < p.group(); ++j) {
    const int64_t head = kv_head * p.group() + j;
    RunningSoftmax state = softmax[static_cast<size_t>(j)];
    float scale = 1.0F;
    if (task.sinks != nullptr) {
      const float top = std::max(state.top, task.sinks[head]);
      scale = std::exp(state.top - top);
      state.sum = state.sum * scale + std::exp(task.sinks[head] - top);
    }
    float* out = task.out + row * p.q_width() + head * p.head_dim;
    std::copy_n(sums + j * ld, p.head_dim, out);
    vec_.scale(out, scale / state.sum, p.head_dim);
  }
}

void CpuGqa::run_pieces(const Task& task, std::span<const GqaSequence* const> sequences) {
  const GqaParams& p = task.params;
  const int64_t group = p.group();
  const int64_t dim = p.head_dim;
  std::vector<Piece> pieces;
  std::vector<size_t> first_piece;  // of each token and key-value head
  for (const GqaSequence* seq : sequences) {
    for (int64_t i = 0; i < seq->q_count; ++i) {
      const int64_t position = seq->context - seq->q_count + i;
      for (int64_t h = 0; h < p.num_kv_heads; ++h) {
        first_piece.push_back(pieces.size());
        for (int64_t begin = task.first_visible(position); begin <= position;) {
          const int64_t end = std::min((begin / kPiece + 1) * kPiece, position + 1);
          pieces.push_back({seq, seq->q_begin + i, h, begin, end});
          begin = end;
        }
      }
    }
  }
  first_piece.push_back(pieces.size());
  // For each piece, head by head: the largest score, the sum of the weights, and the weighted values [head_dim].
  const int64_t stride = group * (dim + 2);
  std::vector<float> partials(pieces.size() * static_cast<size_t>(stride));
  pool_.parallel_for(std::ssize(pieces), [&](int64_t i) {
    attend_piece(task, pieces[static_cast<size_t>(i)], partials.data() + i * stride);
  });
  const auto merge = [&](int64_t i) {
    const size_t first = first_piece[static_cast<size_t>(i)];
    std::vector<RunningSoftmax> softmax;
    float* sums = partials.data() + static_cast<int64_t>(first) * stride;
    for (int64_t j = 0; j < group; ++j) {
      float* head = sums + j * (dim + 2);
      float top = head[0];
      float sum = head[1];
      for (size_t other = first + 1; other < first_piece[static_cast<size_t>(i) + 1]; ++other) {
        const float* add = partials.data() + static_cast<int64_t>(other) * stride + j * (dim + 2);
        const float both = std::max(top, add[0]);
        const float keep = std::exp(top - both);
        const float scale = std::exp(add[0] - both);
        vec_.scale(head + 2, keep, dim);
        vec_.axpy(head + 2, scale, add + 2, dim);
        sum = sum * keep + add[1] * scale;
        top = both;
      }
      softmax.push_back({top, sum});
    }
    finish_rows(task, pieces[first].row, pieces[first].kv_head, sums + 2, dim + 2, softmax);
  };
  // Merging is little work beside the pieces.
  for (int64_t i = 0; i + 1 < std::ssize(first_piece); ++i) merge(i);
}

void CpuGqa::attend_piece(const Task& task, const Piece& piece, float* partial) const {
  pool_.check_stop();
  const GqaParams& p = task.params;
  const int64_t group = p.group();
  const int64_t dim = p.head_dim;
  const int64_t count = piece.end - piece.begin;
  const float* q = task.q + piece.row * p.q_width() + piece.kv_head * group * dim;
  std::vector<float> scores(static_cast<size_t>(group * count));
  std::vector<float> widened(static_cast<size_t>(kWidened * dim));
  const auto for_blocks = [&](const TensorView& cache, const auto& body) {
    for (int64_t begin = piece.begin; begin < piece.end; begin += kWidened) {
      const int64_t end = std::min(begin + kWidened, piece.end);
      body(head_rows(cache, piece.kv_head, dim, begin, end, widened.data()), begin - piece.begin, end - begin);
    }
  };
  for_blocks(piece.sequence->keys, [&](HeadRows rows, int64_t first, int64_t n) {
    vec_.multiply_transposed(q, dim, group, rows.data, rows.ld, n, dim, scores.data() + first, count);
  });
  for (int64_t j = 0; j < group; ++j) {
    float* row = scores.data() + j * count;
    vec_.scale(row, p.softmax_scale, count);
    float* head = partial + j * (dim + 2);
    head[0] = vec_.max(row, count);
    head[1] = vec_.exp_sum(row, head[0], count);
    std::fill_n(head + 2, dim, 0.0F);
  }
  for_blocks(piece.sequence->values, [&](HeadRows rows, int64_t first, int64_t n) {
    vec_.multiply_add(scores.data() + first, count, group, rows.data, rows.ld, n, dim, partial + 2, dim + 2);
  });
}

}  // namespace eps::ops
