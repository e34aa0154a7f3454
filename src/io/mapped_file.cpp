#include "io/mapped_file.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "io/file.h"

namespace eps {

MappedFile MappedFile::open(const std::string& path) {
  const InputFile file(path);
  MappedFile mapped;
  if (file.size() == 0) return mapped;  // mmap refuses a length of 0
  void* data = ::mmap(nullptr, file.size(), PROT_READ, MAP_PRIVATE, file.fd(), 0);
  if (data == MAP_FAILED) {
    const int code = errno;
    fail(ErrorKind::kResource, path,
         {fmt::format("cannot map {} bytes into memory", file.size()), std::strerror(code), "",
          "raising the address space limit (ulimit -v)"});
  }
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.size_ = file.size();
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::advise_sequential() const {
  // Advice only: nothing depends on its success.
  if (data_ != nullptr) (void)::madvise(const_cast<std::byte*>(data_), size_, MADV_SEQUENTIAL);
}

void MappedFile::release(uint64_t offset, uint64_t length) const {
  EPS_CHECK(offset <= size_ && length <= size_ - offset, "release of {} bytes at {} in a file of {}", length, offset,
            size_);
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = (offset + page - 1) / page * page;
  // The last page of the file is partly beyond its end and belongs to nobody else.
  const uint64_t end = offset + length == size_ ? size_ : (offset + length) / page * page;
  if (begin >= end) return;
  (void)::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace eps
