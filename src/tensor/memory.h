// Memory resources that buffers allocate from: the host or a device.
#pragma once

#include <cstddef>

namespace eps {

class MemoryResource {
 public:
  virtual ~MemoryResource() = default;

  // At least `num_bytes`, uninitialised, aligned to 64 bytes or more.
  // Errors  kResource: out of memory
  virtual std::byte* allocate(size_t num_bytes) = 0;
  virtual void deallocate(std::byte* p) noexcept = 0;
  // Whether the host can access the memory through these pointers.
  virtual bool on_host() const = 0;
};

// The process's own memory. Lives as long as the process.
MemoryResource& host_memory();

}  // namespace eps
