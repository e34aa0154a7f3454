#include "tensor/memory.h"

#include <cstdlib>

#include "base/error.h"

namespace eps {
namespace {

class HostMemory final : public MemoryResource {
 public:
  std::byte* allocate(size_t num_bytes) override {
    constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register
    const size_t rounded = (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
    auto* p = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
    if (p == nullptr) {
      fail(ErrorKind::kResource, "memory",
           {.what = "out of memory", .got = fmt::format("a request for {} bytes", rounded), .wanted = "", .hint = ""});
    }
    return p;
  }
  void deallocate(std::byte* p) noexcept override { std::free(p); }
  bool on_host() const override { return true; }
};

}  // namespace

MemoryResource& host_memory() {
  static HostMemory memory;
  return memory;
}

}  // namespace eps
