// Programmatic dependent launch: the blocks of a kernel may be scheduled while those of the previous kernel finish.
//
// The host launches such a kernel with launch_overlapped(). On the device, the kernel must call
// wait_for_previous_kernel() before it reads what an earlier kernel wrote, and before it writes anything that an
// earlier kernel may still read.
#pragma once

#include <utility>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

struct LaunchShape {
  dim3 grid;
  int threads = 0;          // per block
  size_t shared_bytes = 0;  // dynamic shared memory per block
  int cluster = 1;          // blocks per cluster, along x
};

// Launches `kernel` with programmatic stream serialisation. Only decoding attention and the grouped GEMM also let the
// next kernel start early. Doing the same in the small kernels made a decode layer of one token 1 % faster but one of
// eight tokens 14 % slower (H100, cause unknown).
//
// Stream  enqueued on `stream`; may be captured into a graph
// Errors  kInternal, naming the kernel, if the launch is rejected
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

// Returns when the preceding kernels have finished and their writes are visible. Every kernel started by
// launch_overlapped() must call it, even if it reads nothing, because the next kernel relies on this kernel's end to
// imply that all earlier ones have ended. Later reads must not use the non-coherent path (no const __restrict__, no
// __ldg), whose cache lines may be stale.
__device__ __forceinline__ void wait_for_previous_kernel() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Allows the blocks of the next kernel to be scheduled as blocks of this one finish.
__device__ __forceinline__ void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

#endif  // __CUDACC__

}  // namespace eps::cuda
