/* epsmoe's grouped bf16 GEMM for other programs: plain C, so that C programs and Python's ctypes can call it in their
 * own process, on their own memory and stream. libepsmoe_cuda.so exports it. */
#ifndef EPSMOE_GROUPED_GEMM_C_H
#define EPSMOE_GROUPED_GEMM_C_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct EpsmoeGroupedGemm {
  const void* x;          /* device, [sum of rows, k] bf16, rows sorted by group */
  const void* w;          /* device, [num_groups, n, k] bf16 */
  void* y;                /* device, [sum of rows, n] bf16; with silu_mul [sum of rows, n / 2] */
  const int32_t* offsets; /* device, [num_groups + 1]: rows of group g are offsets[g] up to offsets[g + 1] */
  const int64_t* rows;    /* host, [num_groups]: the number of rows of each group, from which the tile is chosen */
  void* workspace;        /* device, 4 bytes that are 0 before the first call and after each; calls that share them
                             must not run at the same time */
  int64_t n;
  int64_t k;
  int32_t num_groups;
  int32_t silu_mul; /* 0: y = x . w^T; 1: the first n / 2 rows of w are gate, the others up: y = silu(gate) * up */
  int32_t num_sms;  /* SMs to use; 0: all */
  /* The tile of x . w^T that an SM computes at a time, rows x columns: 128 x 256, 128 x 192, 256 x 128, 224 x 128,
   * 160 x 128 or 128 x 128; both 0: chosen from the rows. */
  int32_t tile_rows;
  int32_t tile_cols;
  void* stream; /* cudaStream_t */
} EpsmoeGroupedGemm;

/* Enqueues the product on the stream. Pointers must start on 16 bytes, n (n / 2 with silu_mul) and k be multiples of 8.
 * Returns 0, or 1 and then epsmoe_grouped_gemm_error() says why in one line. */
int epsmoe_grouped_gemm(const EpsmoeGroupedGemm* call);

/* The message of this thread's last call that returned 1; valid until the next one. */
const char* epsmoe_grouped_gemm_error(void);

#ifdef __cplusplus
}
#endif

#endif
