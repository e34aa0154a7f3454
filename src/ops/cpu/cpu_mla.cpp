#include "ops/cpu/cpu_mla.h"

#include <algorithm>
#include <cstring>

#include "ops/cpu/convert.h"

namespace eps::ops {
namespace {

// Writes the transpose of src [rows, cols], whose elements have `size` bytes, to dst [cols, rows].
void transpose(const std::byte* src, int64_t rows, int64_t cols, size_t size, std::byte* dst) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      std::memcpy(dst + static_cast<size_t>(c * rows + r) * size, src + static_cast<size_t>(r * cols + c) * size, size);
    }
  }
}

// Number of queries that a head processes at a time in the expanded form: their scores over a context of 2k positions
// fit in the L2 cache.
constexpr int64_t kQueryBlock = 32;

// Compares the multiply-adds that one head needs for one sequence in the absorbed and in the expanded form.
bool absorbing_is_cheaper(const MlaParams& p, const MlaSequence& seq) {
  const auto t = static_cast<double>(seq.q_count);
  const auto c = static_cast<double>(seq.context);
  const double up = p.nope_dim + p.v_dim;
  const double expanded = c * up * p.kv_lora_rank + t * c * (p.q_dim() + p.v_dim);
  const double absorbed = t * up * p.kv_lora_rank + t * c * (2.0 * p.kv_lora_rank + p.rope_dim);
  return absorbed < expanded;
}

}  // namespace

size_t CpuMlaWeight::num_bytes() const {
  size_t bytes = expand->num_bytes();
  for (const auto& w : key_up) bytes += w->num_bytes();
  for (const auto& w : value_up) bytes += w->num_bytes();
  return bytes;
}

std::unique_ptr<CpuMlaWeight> pack_cpu_mla(const TensorView& kv_b, const MlaParams& p, const CpuEngineChoice& engine,
                                           const CpuEngineChoice& f32_engine, ThreadPool& pool) {
  const int64_t head_rows = p.nope_dim + p.v_dim;
  EPS_CHECK_EQ(kv_b.dim(0), p.num_heads * head_rows);
  EPS_CHECK_EQ(kv_b.dim(1), p.kv_lora_rank);
  auto out = std::make_unique<CpuMlaWeight>();
  out->expand = pack_linear(std::span(&kv_b, 1), engine, &pool);
  out->key_up.resize(static_cast<size_t>(p.num_heads));
  out->value_up.resize(static_cast<size_t>(p.num_heads));
  pool.parallel_for(p.num_heads, [&](int64_t h) {
    const TensorView keys = kv_b.rows(h * head_rows, h * head_rows + p.nope_dim);
    const TensorView values = kv_b.rows(h * head_rows + p.nope_dim, (h + 1) * head_rows);
    Buffer scratch;
    const MutableTensorView transposed = scratch.view(kv_b.dtype(), {p.kv_lora_rank, p.nope_dim});
    transpose(static_cast<const std::byte*>(keys.data()), p.nope_dim, p.kv_lora_rank, size_of(kv_b.dtype()),
              static_cast<std::byte*>(transposed.data()));
    const TensorView key_view = transposed;
    out->key_up[static_cast<size_t>(h)] = pack_linear(std::span(&key_view, 1), f32_engine);
    out->value_up[static_cast<size_t>(h)] = pack_linear(std::span(&values, 1), f32_engine);
  });
  return out;
}

void CpuMla::run(const MlaParams& p, const CpuMlaWeight& weight, const float* q, std::span<const MlaSequence> sequences,
                 float* out) {
  std::vector<const MlaSequence*> absorbed;
  for (const MlaSequence& seq : sequences) {
    if (seq.q_count == 0) continue;
    if (absorbing_is_cheaper(p, seq)) {
      absorbed.push_back(&seq);
    } else {
      run_expanded(p, weight, q, seq, out);
    }
  }
  pool_.parallel_for(static_cast<int64_t>(absorbed.size()) * p.num_heads, [&](int64_t i) {
    run_absorbed(p, weight, q, *absorbed[static_cast<size_t>(i / p.num_heads)], i % p.num_heads, out);
  });
}

void CpuMla::run_expanded(const MlaParams& p, const CpuMlaWeight& weight, const float* q, const MlaSequence& seq,
                          float* out) {
  const int64_t ctx = seq.context;
  const int64_t head_rows = p.nope_dim + p.v_dim;
  const int64_t kv_width = p.num_heads * head_rows;
  float* kv = kv_.view(DType::kF32, {ctx, kv_width}).as<float>();
  const void* latent = seq.latent;
  if (weight.expand->input_dtype() == DType::kBF16) {
    bf16* converted = latent_.view(DType::kBF16, {ctx, p.kv_lora_rank}).as<bf16>();
    convert_f32_to_bf16(seq.latent, converted, ctx * p.kv_lora_rank);
    latent = converted;
  }
  const GemmTask expand{weight.expand.get(), latent, p.kv_lora_rank, kv, kv_width, ctx};
  run_gemms(std::span(&expand, 1), pool_);

  pool_.parallel_for(p.num_heads, [&](int64_t h) {
    // This head's keys as a weight [ctx, q_dim], and its values transposed, as a weight [v, ctx].
    Buffer key_buffer;
    Buffer value_buffer;
    const MutableTensorView keys = key_buffer.view(DType::kF32, {ctx, p.q_dim()});
    const MutableTensorView values = value_buffer.view(DType::kF32, {p.v_dim, ctx});
    float* k = keys.as<float>();
    float* v = values.as<float>();
    for (int64_t c = 0; c < ctx; ++c) {
      const float* row = kv + c * kv_width + h * head_rows;
      std::copy_n(row, p.nope_dim, k + c * p.q_dim());
      std::copy_n(seq.k_pe + c * p.rope_dim, p.rope_dim, k + c * p.q_dim() + p.nope_dim);
      for (int64_t i = 0; i < p.v_dim; ++i) v[i * ctx + c] = row[p.nope_dim + i];
    }
    const TensorView key_view = keys;
    const TensorView value_view = values;
    const auto key_weight = pack_linear(std::span(&key_view, 1), f32_engine_);
    const auto value_weight = pack_linear(std::span(&value_view, 1), f32_engine_);

    Buffer score_buffer;
    float* scores = score_buffer.view(DType::kF32, {kQueryBlock, ctx}).as<float>();
    const int64_t q_width = int64_t{p.num_heads} * p.q_dim();
    const int64_t out_width = int64_t{p.num_heads} * p.v_dim;
    for (int64_t begin = 0; begin < seq.q_count; begin += kQueryBlock) {
      pool_.check_stop();  // a head of a long prompt takes seconds
      const int64_t m = std::min(kQueryBlock, seq.q_count - begin);
      const float* block = q + (seq.q_begin + begin) * q_width + h * p.q_dim();
      key_weight->run_block(block, q_width, scores, ctx, m, 0, ctx);
      for (int64_t i = 0; i < m; ++i) {
        const int64_t visible = ctx - seq.q_count + begin + i + 1;
        float* row = scores + i * ctx;
        vec_.scale(row, p.softmax_scale, visible);
        vec_.softmax(row, visible);
        std::fill(row + visible, row + ctx, 0.0F);
      }
      value_weight->run_block(scores, ctx, out + (seq.q_begin + begin) * out_width + h * p.v_dim, out_width, m, 0,
                              p.v_dim);
    }
  });
}

void CpuMla::run_absorbed(const MlaParams& p, const CpuMlaWeight& weight, const float* q, const MlaSequence& seq,
                          int64_t head, float* out) const {
  const PackedLinear& key_up = *weight.key_up[static_cast<size_t>(head)];
  const PackedLinear& value_up = *weight.value_up[static_cast<size_t>(head)];
  std::vector<float> query(static_cast<size_t>(p.kv_lora_rank));
  std::vector<float> mixed(static_cast<size_t>(p.kv_lora_rank));
  std::vector<float> scores(static_cast<size_t>(seq.context));
  for (int64_t i = 0; i < seq.q_count; ++i) {
    pool_.check_stop();
    const int64_t t = seq.q_begin + i;
    const float* qh = q + (t * p.num_heads + head) * p.q_dim();
    const int64_t visible = seq.context - seq.q_count + i + 1;
    key_up.run_block(qh, p.nope_dim, query.data(), p.kv_lora_rank, 1, 0, p.kv_lora_rank);
    for (int64_t c = 0; c < visible; ++c) {
      const float score = vec_.dot(query.data(), seq.latent + c * p.kv_lora_rank, p.kv_lora_rank) +
                          vec_.dot(qh + p.nope_dim, seq.k_pe + c * p.rope_dim, p.rope_dim);
      scores[static_cast<size_t>(c)] = score * p.softmax_scale;
    }
    vec_.softmax(scores.data(), visible);
    std::fill(mixed.begin(), mixed.end(), 0.0F);
    for (int64_t c = 0; c < visible; ++c) {
      vec_.axpy(mixed.data(), scores[static_cast<size_t>(c)], seq.latent + c * p.kv_lora_rank, p.kv_lora_rank);
    }
    value_up.run_block(mixed.data(), p.kv_lora_rank, out + (t * p.num_heads + head) * p.v_dim, p.v_dim, 1, 0, p.v_dim);
  }
}

}  // namespace eps::ops
