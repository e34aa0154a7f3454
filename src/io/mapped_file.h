// A whole file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace eps {

// Owns    the mapping; move-only. The descriptor is closed once mapped.
// Threads reading and release() from any thread
// Edge    an empty file has an empty span; if the file is cut short while mapped, touching the lost part is SIGBUS
class MappedFile {
 public:
  // Errors  kInput when the file cannot be read, kResource when it cannot be mapped
  static MappedFile open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

  // Tells the kernel that the file is about to be read front to back, once.
  void advise_sequential() const;

  // Gives the memory of the whole pages inside [offset, offset + length) back. Their bytes stay readable: touching
  // them reads the file again.
  void release(uint64_t offset, uint64_t length) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace eps
