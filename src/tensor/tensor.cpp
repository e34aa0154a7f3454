#include "tensor/tensor.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace eps {

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  EPS_CHECK_LE(dims.size(), static_cast<size_t>(kMaxRank));
  std::copy(dims.begin(), dims.end(), dims_);
}

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= dims_[i];
  return n;
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && std::equal(dims_, dims_ + rank_, other.dims_);
}

std::string Shape::to_string() const {
  std::string out = "[";
  for (int i = 0; i < rank_; ++i) out += (i == 0 ? "" : ", ") + std::to_string(dims_[i]);
  return out + "]";
}

template <typename Void>
BasicTensorView<Void> BasicTensorView<Void>::rows(int64_t begin, int64_t end) const {
  EPS_CHECK(shape_.rank() >= 1 && begin >= 0 && begin <= end && end <= shape_[0], "rows {}..{} of {}", begin, end,
            shape_.to_string());
  int64_t dims[Shape::kMaxRank];
  int64_t row_numel = 1;
  dims[0] = end - begin;
  for (int i = 1; i < shape_.rank(); ++i) {
    dims[i] = shape_[i];
    row_numel *= shape_[i];
  }
  using Byte = std::conditional_t<std::is_const_v<Void>, const std::byte, std::byte>;
  auto* base = static_cast<Byte*>(data_) + begin * row_numel * static_cast<int64_t>(size_of(dtype_));
  return {base, dtype_, Shape(std::span<const int64_t>(dims, static_cast<size_t>(shape_.rank())))};
}

template class BasicTensorView<const void>;
template class BasicTensorView<void>;

void Buffer::reserve(size_t num_bytes) {
  if (num_bytes <= capacity_) return;
  MemoryResource& memory = *data_.get_deleter().memory;
  data_.reset();  // freed first, so that the device never holds both allocations
  capacity_ = 0;
  data_.reset(memory.allocate(num_bytes));
  capacity_ = num_bytes;
}

MutableTensorView Buffer::view(DType dtype, const Shape& shape) {
  reserve(std::max<size_t>(1, static_cast<size_t>(shape.numel()) * size_of(dtype)));
  return {data_.get(), dtype, shape};
}

}  // namespace eps
