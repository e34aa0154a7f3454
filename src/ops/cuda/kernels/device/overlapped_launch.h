// Programmatic dependent launch: a kernel whose blocks may be placed while the kernel before it drains.
//
// The host starts it with launch_overlapped(). On the device it must call wait_for_previous_kernel() before it reads
// what an earlier kernel wrote and before it writes anything that an earlier kernel may still read.
#pragma once

#include <utility>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

struct LaunchShape {
  dim3 grid;
  int threads = 0;          // of a block
  size_t shared_bytes = 0;  // dynamic shared memory of a block
  int cluster = 1;          // blocks of a cluster, along x
};

// Starts `kernel` with programmatic stream serialisation. Only the attention for decoding and the grouped GEMM also let
// the next kernel start early: in the small kernels that gained 1 % on a decode layer of one token and lost 14 % on one
// of eight (H100), for reasons that were not found.
//
// Stream  enqueued on `stream`; may be captured into a graph
// Errors  kInternal, naming the kernel, when the launch is refused
template <typename... Params, typename... Args>
void launch_overlapped(void (*kernel)(Params...), const LaunchShape& shape, cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = shape.cluster > 1 ? 2 : 1;
  check_launch(cudaLaunchKernelEx(&config, kernel, Params(std::forward<Args>(args))...),
               reinterpret_cast<const void*>(kernel), {"kernel", __FILE__, __LINE__});
}

#ifdef __CUDACC__

// Returns when the kernels before this one have finished and their writes can be read. Every kernel started by
// launch_overlapped() must call it, even one that reads nothing: the kernel after it takes the end of this one to mean
// that the earlier ones have ended too. Reads after it must not go through the non-coherent path (no const
// __restrict__, no __ldg), whose cache lines may be stale.
__device__ __forceinline__ void wait_for_previous_kernel() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Lets the blocks of the next kernel be placed as blocks of this one leave.
__device__ __forceinline__ void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

#endif  // __CUDACC__

}  // namespace eps::cuda
