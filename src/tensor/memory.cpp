#include "tensor/memory.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"

namespace eps {
namespace {

// A huge page of x86-64 and of most other systems. A gigabyte of them is freed in 10 ms; in ordinary pages it takes 100
// ms and more, which delays the end of a program that was told to stop.
constexpr size_t kHugePage = size_t{2} << 20;
// Smaller buffers have too few whole huge pages for it to matter.
constexpr size_t kLeastHuge = 2 * kHugePage;
// Large buffers up to this many bytes together get ordinary pages all the same: they are freed in time, and virtual
// machines that give unused memory back to their host take twice as long to get it again in huge pages.
constexpr uint64_t kOrdinaryBytes = uint64_t{3} << 30;
// Each buffer with huge pages may cost two of the 65530 areas that Linux lets a process have.
constexpr int kMostHuge = 16384;

size_t round_up(size_t num_bytes, size_t unit) { return (num_bytes + unit - 1) / unit * unit; }

class HostMemory final : public MemoryResource {
 public:
  std::byte* allocate(size_t num_bytes) override {
    constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register
    const bool is_huge = num_bytes >= kLeastHuge && wants_huge(num_bytes);
    const size_t alignment = is_huge ? kHugePage : kAlignment;
    const size_t rounded = round_up(num_bytes, kAlignment);
    auto* p = static_cast<std::byte*>(std::aligned_alloc(alignment, round_up(num_bytes, alignment)));
    if (p == nullptr) {
      fail(ErrorKind::kResource, "memory",
           {.what = "out of memory", .got = fmt::format("a request for {} bytes", rounded), .wanted = "", .hint = ""});
    }
    // Only a wish: systems without huge pages refuse it, and give small ones.
    if (is_huge) (void)madvise(p, rounded / kHugePage * kHugePage, MADV_HUGEPAGE);
    return p;
  }
  void deallocate(std::byte* p) noexcept override { std::free(p); }
  bool on_host() const override { return true; }

 private:
  // Of a large buffer.
  bool wants_huge(size_t num_bytes) {
    return large_bytes_.fetch_add(num_bytes, std::memory_order_relaxed) >= kOrdinaryBytes &&
           num_huge_.fetch_add(1, std::memory_order_relaxed) < kMostHuge;
  }

  // Whatever was freed since.
  std::atomic<uint64_t> large_bytes_{0};
  std::atomic<int64_t> num_huge_{0};
};

}  // namespace

MemoryResource& host_memory() {
  static HostMemory memory;
  return memory;
}

}  // namespace eps
