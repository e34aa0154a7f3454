// TensorView is a dtype, a shape and a pointer that it does not own. Buffer owns aligned memory. Both are row-major and
// contiguous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"
#include "tensor/dtype.h"
#include "tensor/memory.h"

namespace eps {

// Up to four dimensions. The number of elements fits int64; checked_numel checks sizes from untrusted sources.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return dims_[axis]; }
  int64_t numel() const;
  bool operator==(const Shape& other) const;
  std::string to_string() const;  // "[2, 3]"

 private:
  int64_t dims_[kMaxRank] = {};
  int rank_ = 0;
};

template <typename Void>
class BasicTensorView {
 public:
  BasicTensorView() = default;
  BasicTensorView(Void* data, DType dtype, Shape shape) : data_(data), dtype_(dtype), shape_(shape) {}
  // A writable view can be used as a read-only one.
  operator BasicTensorView<const void>() const { return {data_, dtype_, shape_}; }

  Void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int axis) const { return shape_[axis]; }
  int64_t numel() const { return shape_.numel(); }
  size_t num_bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  explicit operator bool() const { return data_ != nullptr; }

  // Typed pointer, with a check of the dtype: `as<const float>()` on a read-only view, `as<float>()` on a writable one.
  template <typename T>
  T* as() const {
    constexpr DType want = DTypeOf<std::remove_const_t<T>>::value;
    EPS_CHECK(dtype_ == want, "tensor is {}, wanted {}", to_string(dtype_), to_string(want));
    return static_cast<T*>(data_);
  }
  // Rows [begin, end) of axis 0.
  BasicTensorView rows(int64_t begin, int64_t end) const;

 private:
  Void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_;
};

using TensorView = BasicTensorView<const void>;
using MutableTensorView = BasicTensorView<void>;

struct ReturnToResource {
  MemoryResource* memory = &host_memory();
  void operator()(std::byte* p) const { memory->deallocate(p); }
};

// Uninitialised, move-only memory of one resource, aligned to 64 bytes or more. `reserve` never shrinks the buffer and
// does not preserve its contents.
class Buffer {
 public:
  Buffer() = default;
  // `memory` must outlive the buffer.
  explicit Buffer(MemoryResource& memory) : data_(nullptr, ReturnToResource{&memory}) {}
  explicit Buffer(size_t num_bytes) { reserve(num_bytes); }

  void reserve(size_t num_bytes);
  std::byte* data() const { return data_.get(); }
  size_t capacity() const { return capacity_; }

  // Returns a view of the beginning of the buffer with `shape` and `dtype`; enlarges the buffer if it is too small.
  MutableTensorView view(DType dtype, const Shape& shape);

 private:
  std::unique_ptr<std::byte, ReturnToResource> data_;
  size_t capacity_ = 0;
};

}  // namespace eps
