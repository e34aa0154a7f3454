#include "ops/cuda/kernels/attention/mla_plain.h"

#include <cmath>

namespace eps::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kKeys = 32;  // cache rows per step: one per lane in the softmax
constexpr int kMaxSharedBytes = 224 * 1024;
constexpr float kLog2E = 1.4426950408889634F;

// Elements per cache row in shared memory, as floats. The number is odd, so that 32 lanes that read 32 rows access
// different banks.
__host__ __device__ constexpr int key_stride(const MlaDims& d) { return (d.kv_lora_rank + d.rope_dim) | 1; }

template <int kQueries>
constexpr size_t shared_floats(const MlaDims& d) {
  const auto stride = static_cast<size_t>(key_stride(d));
  return kQueries * (2 * stride + static_cast<size_t>(d.q_dim())) + kKeys * stride + kKeys * kQueries + 3 * kQueries;
}

// grid (tiles of kQueries tokens, num_heads, num_sequences)
template <int kQueries>
__global__ void __launch_bounds__(kThreads) plain_attention_kernel(const MlaPlainParams args) {
  const MlaDims& d = args.dims;
  const DeviceSequence seq = args.sequences[blockIdx.z];
  const int query0 = static_cast<int>(blockIdx.x) * kQueries;
  if (query0 >= seq.q_count) return;
  const int head = static_cast<int>(blockIdx.y);
  const int tid = static_cast<int>(threadIdx.x);
  const int warp = tid / 32;
  const int lane = tid % 32;
  const int lora = d.kv_lora_rank;
  const int key_dim = lora + d.rope_dim;
  const int stride = key_stride(d);
  const int q_dim = d.q_dim();

  extern __shared__ float shared[];
  float* const query = shared;                   // [kQueries, stride], in the latent space
  float* const sum = query + kQueries * stride;  // [kQueries, stride], Σ p · latent
  float* const key = sum + kQueries * stride;    // [kKeys, stride]
  float* const prob = key + kKeys * stride;      // [kKeys, kQueries]
  float* const row_max = prob + kKeys * kQueries;
  float* const row_sum = row_max + kQueries;
  float* const rescale = row_sum + kQueries;
  float* const raw = rescale + kQueries;  // [kQueries, q_dim]

  for (int i = tid; i < kQueries * q_dim; i += kThreads) {
    const int row = i / q_dim;
    const int64_t t = seq.q_begin + query0 + row;
    raw[i] = query0 + row < seq.q_count ? __bfloat162float(args.q[(t * d.num_heads + head) * q_dim + i % q_dim]) : 0.0F;
  }
  if (tid < kQueries) {
    row_max[tid] = -INFINITY;
    row_sum[tid] = 0.0F;
  }
  __syncthreads();

  const nv_bf16* const w_uk = args.kv_b + static_cast<int64_t>(head) * (d.nope_dim + d.v_dim) * lora;
  const nv_bf16* const w_uv = w_uk + static_cast<int64_t>(d.nope_dim) * lora;
  for (int column = tid; column < key_dim; column += kThreads) {
    float acc[kQueries] = {};
    if (column < lora) {
      for (int n = 0; n < d.nope_dim; ++n) {
        const float w = __bfloat162float(w_uk[static_cast<int64_t>(n) * lora + column]);
#pragma unroll
        for (int i = 0; i < kQueries; ++i) acc[i] += w * raw[i * q_dim + n];
      }
    } else {
#pragma unroll
      for (int i = 0; i < kQueries; ++i) acc[i] = raw[i * q_dim + d.nope_dim + column - lora];
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      query[i * stride + column] = acc[i] * (d.softmax_scale * kLog2E);
      sum[i * stride + column] = 0.0F;
    }
  }

  const int64_t layer_row = static_cast<int64_t>(args.layer) * seq.capacity;
  const nv_bf16* const latent = seq.latent + layer_row * lora;
  const nv_bf16* const k_pe = seq.k_pe + layer_row * d.rope_dim;
  const int before = seq.context - seq.q_count;  // query i of the sequence attends to before + i + 1 positions
  const int end = before + min(query0 + kQueries, seq.q_count);
  for (int position0 = 0; position0 < end; position0 += kKeys) {
    __syncthreads();  // all threads have read the previous tile
    // A thread loads one column of several rows, so that all these loads are in flight at once.
    for (int column = lane; column < key_dim; column += 32) {
      const bool in_latent = column < lora;
      const nv_bf16* const source = in_latent ? latent + column : k_pe + column - lora;
      const int64_t pitch = in_latent ? lora : d.rope_dim;
#pragma unroll
      for (int i = 0; i < kKeys / kWarps; ++i) {
        const int row = warp + i * kWarps;
        // Zeros after the last position, where the memory may hold NaN.
        const bool valid = position0 + row < end;
        key[row * stride + column] = valid ? __bfloat162float(source[(position0 + row) * pitch]) : 0.0F;
      }
    }
    __syncthreads();

    // Each lane handles one key, and each warp handles the queries warp, warp + 8, …
    constexpr int kPerWarp = (kQueries + kWarps - 1) / kWarps;
    float score[kPerWarp] = {};
    if (warp < kQueries) {
#pragma unroll 8
      for (int column = 0; column < key_dim; ++column) {
        const float k = key[lane * stride + column];
#pragma unroll
        for (int i = 0; i < kPerWarp; ++i) score[i] += k * query[(warp + i * kWarps) * stride + column];
      }
#pragma unroll
      for (int i = 0; i < kPerWarp; ++i) {
        const int row = warp + i * kWarps;
        const float s = position0 + lane <= before + query0 + row && position0 + lane < end ? score[i] : -INFINITY;
        float top = s;
#pragma unroll
        for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0U, top, step));
        const float old = row_max[row];
        top = fmaxf(top, old);
        const float base = top == -INFINITY ? 0.0F : top;
        const float p = exp2f(s - base);
        float total = p;
#pragma unroll
        for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(~0U, total, step);
        prob[lane * kQueries + row] = p;
        __syncwarp();
        if (lane == 0) {
          const float keep = exp2f(old - base);
          row_max[row] = top;
          row_sum[row] = row_sum[row] * keep + total;
          rescale[row] = keep;
        }
      }
    }
    __syncthreads();

    for (int column = tid; column < lora; column += kThreads) {
      float acc[kQueries];
#pragma unroll
      for (int i = 0; i < kQueries; ++i) acc[i] = sum[i * stride + column] * rescale[i];
#pragma unroll 4
      for (int k = 0; k < kKeys; ++k) {
        const float v = key[k * stride + column];
#pragma unroll
        for (int i = 0; i < kQueries; ++i) acc[i] += prob[k * kQueries + i] * v;
      }
#pragma unroll
      for (int i = 0; i < kQueries; ++i) sum[i * stride + column] = acc[i];
    }
  }
  __syncthreads();

  for (int v = warp; v < d.v_dim; v += kWarps) {
    float acc[kQueries] = {};
    for (int column = lane; column < lora; column += 32) {
      const float w = __bfloat162float(w_uv[static_cast<int64_t>(v) * lora + column]);
#pragma unroll
      for (int i = 0; i < kQueries; ++i) acc[i] += w * sum[i * stride + column];
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
#pragma unroll
      for (int step = 16; step > 0; step /= 2) acc[i] += __shfl_xor_sync(~0U, acc[i], step);
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      if (lane == i && query0 + i < seq.q_count) {
        const int64_t t = seq.q_begin + query0 + i;
        args.out[(t * d.num_heads + head) * d.v_dim + v] = __float2bfloat16_rn(acc[i] / row_sum[i]);
      }
    }
  }
}

template <int kQueries>
bool fits(const MlaDims& dims) {
  return shared_floats<kQueries>(dims) * sizeof(float) <= kMaxSharedBytes;
}

template <int kQueries>
void launch(const MlaPlainParams& args, cudaStream_t stream) {
  const auto bytes = static_cast<int>(shared_floats<kQueries>(args.dims) * sizeof(float));
  EPS_CUDA(cudaFuncSetAttribute(plain_attention_kernel<kQueries>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const dim3 grid(static_cast<unsigned>(ceil_div(args.max_q_count, kQueries)),
                  static_cast<unsigned>(args.dims.num_heads), static_cast<unsigned>(args.num_sequences));
  plain_attention_kernel<kQueries><<<grid, kThreads, static_cast<size_t>(bytes), stream>>>(args);
  EPS_CUDA_LAUNCHED(plain_attention_kernel<kQueries>);
}

}  // namespace

bool mla_plain_supported(const MlaDims& dims) { return fits<2>(dims); }

void launch_plain_attention(const MlaPlainParams& params, cudaStream_t stream) {
  if (params.num_sequences == 0 || params.max_q_count == 0) return;
  if (params.max_q_count > 2 && fits<16>(params.dims)) {
    launch<16>(params, stream);
  } else {
    launch<2>(params, stream);
  }
}

}  // namespace eps::cuda
