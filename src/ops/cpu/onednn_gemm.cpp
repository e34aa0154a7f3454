#include "ops/cpu/onednn_gemm.h"

#include <algorithm>
#include <cstring>
#include <dnnl.hpp>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <tuple>
#include <unordered_map>

#include "base/error.h"
#include "ops/cpu/onednn_threads.h"
#include "ops/cpu/stacked_rows.h"

namespace eps::ops {
namespace {

using dnnl::memory;

constexpr int64_t kMaxRows =
    256;  // enough rows to hide the latency of reading the weights; limits the number of primitives
// Rows are padded to a multiple of this. Below 16 rows, oneDNN 2.6 uses different kernels, whose sums differ in the
// last bit (observed between one row and two), but a result must not depend on the number of rows.
constexpr int64_t kRowStep = 16;
// N is cut into slices, so that threads can share a product. The width is a multiple of 64 (oneDNN's widest column
// block) near 512, where the bf16 weights for K = 2048 fill a 2 MiB L2 cache.
constexpr int64_t kSliceColumns = 512;
// The number of rows for which oneDNN's preferred weight layout is queried. All row counts must use the same layout.
constexpr int64_t kLayoutRows = 64;

struct PrimitiveKey {
  int64_t m;
  int64_t n;
  int64_t k;
  int64_t ldx;
  int64_t ldy;
  bool operator==(const PrimitiveKey&) const = default;
};

struct HashKey {
  size_t operator()(const PrimitiveKey& key) const {
    size_t hash = 0;
    for (const int64_t part : {key.m, key.n, key.k, key.ldx, key.ldy}) {
      hash = (hash ^ static_cast<size_t>(part)) * 0x9e3779b97f4a7c15ULL;
      hash ^= hash >> 32;
    }
    return hash;
  }
};

struct Primitive {
  dnnl::matmul matmul;
  memory::desc x;
  memory::desc w;
  memory::desc y;
  memory::desc scratchpad;
  std::string implementation;
  bool block_kernel = false;  // uses oneDNN's batch-reduce kernels, the only ones optimised for bf16 tiles
};

template <typename Body>
auto calling_onednn(const char* what, const Body& body) {
  try {
    return body();
  } catch (const dnnl::error& e) {
    fail(ErrorKind::kInternal, "oneDNN", {fmt::format("{} failed ({})", what, e.what()), "", "", "f32 compute"});
  }
}

}  // namespace

class OneDnnContext {
 public:
  const dnnl::engine& engine() const { return engine_; }

  // Layout for the weights of an [n, k] slice.
  memory::desc weight_layout(int64_t n, int64_t k) {
    const std::unique_lock lock(mutex_);
    return weight_layout_locked(n, k);
  }

  // The context owns the primitive, so the pointer is valid as long as the context exists.
  const Primitive* primitive(const PrimitiveKey& key) {
    {
      const std::shared_lock lock(mutex_);
      if (const auto it = primitives_.find(key); it != primitives_.end()) return it->second.get();
    }
    const std::unique_lock lock(mutex_);
    auto& slot = primitives_[key];
    if (!slot) slot = make_primitive(key, weight_layout_locked(key.n, key.k));
    return slot.get();
  }

  std::vector<std::string> implementations() const {
    const std::shared_lock lock(mutex_);
    std::vector<std::string> names;
    for (const auto& [key, primitive] : primitives_) names.push_back(primitive->implementation);
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
  }

 private:
  memory::desc weight_layout_locked(int64_t n, int64_t k) {
    const auto [it, is_first] = layouts_.try_emplace({n, k});
    if (is_first) {
      const memory::desc any({k, n}, memory::data_type::bf16, memory::format_tag::any);
      it->second = make_primitive({kLayoutRows, n, k, k, n}, any)->w;
    }
    return it->second;
  }

  std::unique_ptr<Primitive> make_primitive(const PrimitiveKey& key, const memory::desc& weights) const {
    return calling_onednn("creating a bf16 product", [&] {
      dnnl::primitive_attr attr;
      // oneDNN would bind its own scratchpad to the thread that creates the primitive, but our primitives run on any
      // thread.
      attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
      const memory::desc x({key.m, key.k}, memory::data_type::bf16, memory::dims{key.ldx, 1});
      const memory::desc y({key.m, key.n}, memory::data_type::f32, memory::dims{key.ldy, 1});
      const OneOmpThread one_thread;  // the number of threads is fixed at creation
      const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(x, weights, y), attr, engine_);
      auto made = std::make_unique<Primitive>();
      made->matmul = dnnl::matmul(desc);
      made->x = x;
      made->w = desc.weights_desc();
      made->y = y;
      made->scratchpad = desc.scratchpad_desc();
      made->implementation = desc.impl_info_str();
      made->block_kernel = made->implementation.rfind("brg", 0) == 0;
      return made;
    });
  }

  const dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  mutable std::shared_mutex mutex_;
  std::map<std::pair<int64_t, int64_t>, memory::desc> layouts_;
  std::unordered_map<PrimitiveKey, std::unique_ptr<Primitive>, HashKey> primitives_;
};

namespace {

// Each thread keeps this between calls.
struct ThreadScratch {
  Buffer x;
  Buffer y;
  Buffer scratchpad;
};

class OneDnnLinear final : public PackedLinear {
 public:
  OneDnnLinear(const StackedRows& rows, std::shared_ptr<OneDnnContext> context, ThreadPool* pool)
      : PackedLinear(rows.num_rows(), rows.width()),
        context_(std::move(context)),
        slices_(static_cast<size_t>((rows.num_rows() + kSliceColumns - 1) / kSliceColumns)) {
    const size_t slice_bytes = static_cast<size_t>(kSliceColumns) * rows.row_bytes();
    for_panels(std::ssize(slices_), slice_bytes, pool, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) pack_slice(rows, s * kSliceColumns, slices_[static_cast<size_t>(s)]);
    });
    for (const Slice& slice : slices_) num_bytes_ += slice.num_bytes;
  }

  size_t num_bytes() const override { return num_bytes_; }
  DType input_dtype() const override { return DType::kBF16; }
  Grain grain() const override { return {kSliceColumns, kMaxRows}; }

  void run_block(const void* x, int64_t ldx, float* y, int64_t ldy, int64_t m, int64_t n_begin,
                 int64_t n_end) const override {
    EPS_CHECK_EQ(n_begin % kSliceColumns, 0);
    EPS_CHECK_LE(m, kMaxRows);
    const OneOmpThread one_thread;
    const auto* rows = static_cast<const bf16*>(x);
    const bf16* padded = nullptr;
    for (int64_t n0 = n_begin; n0 < n_end; n0 += kSliceColumns) {
      run_slice(slices_[static_cast<size_t>(n0 / kSliceColumns)], rows, ldx, padded, y + n0, ldy, m);
    }
  }

 private:
  struct Slice {
    int64_t n = 0;
    size_t num_bytes = 0;
    Buffer weights;
  };

  // Packs columns [n0, n0 + kSliceColumns), or as many as remain. They are rows of the weight.
  void pack_slice(const StackedRows& rows, int64_t n0, Slice& slice) const {
    const int64_t k = rows.width();
    slice.n = std::min(kSliceColumns, rows.num_rows() - n0);
    std::vector<const std::byte*> from_rows(static_cast<size_t>(slice.n));
    Buffer converted;
    rows.get(n0, from_rows, converted);
    Buffer dense(from_rows.size() * rows.row_bytes());
    for (size_t r = 0; r < from_rows.size(); ++r) {
      std::memcpy(dense.data() + r * rows.row_bytes(), from_rows[r], rows.row_bytes());
    }
    const memory::desc layout = context_->weight_layout(slice.n, k);
    slice.num_bytes = layout.get_size();
    slice.weights.reserve(slice.num_bytes);
    const OneOmpThread one_thread;
    calling_onednn("packing a weight", [&] {
      dnnl::stream stream(context_->engine());
      const memory::desc plain({k, slice.n}, memory::data_type::bf16, memory::dims{1, k});
      memory from(plain, context_->engine(), dense.data());
      memory to(layout, context_->engine(), slice.weights.data());
      dnnl::reorder(from, to).execute(stream, from, to);
      stream.wait();
      return 0;
    });
    const Primitive* probe = context_->primitive({kRowStep, slice.n, k, k, slice.n});
    EPS_CHECK(probe->implementation.rfind("ref", 0) != 0, "oneDNN has only reference code for bf16 [{}, {}] here",
              slice.n, k);
  }

  // x and y are used in place if their rows fill a row count that has a primitive and oneDNN's block kernels support
  // their strides. Otherwise they are copied to dense buffers; `padded` keeps the copy of x for the following slices.
  void run_slice(const Slice& slice, const bf16* x, int64_t ldx, const bf16*& padded, float* y, int64_t ldy,
                 int64_t m) const {
    thread_local ThreadScratch scratch;
    const int64_t k = in_features();
    const int64_t bucket = onednn_row_bucket(m);
    const Primitive* primitive = nullptr;
    bool copy_x = bucket != m;
    bool copy_y = bucket != m;
    if (!copy_x) {
      primitive = context_->primitive({m, slice.n, k, ldx, ldy});
      if (!primitive->block_kernel) {
        copy_y = true;
        primitive = context_->primitive({m, slice.n, k, ldx, slice.n});
        copy_x = !primitive->block_kernel;
      }
    }
    if (copy_x) {
      if (padded == nullptr) padded = copy_rows(x, ldx, m, bucket, scratch.x);
      primitive = context_->primitive({bucket, slice.n, k, k, slice.n});
    }
    float* result = y;
    if (copy_y) {
      scratch.y.reserve(static_cast<size_t>(bucket * slice.n) * sizeof(float));
      result = reinterpret_cast<float*>(scratch.y.data());
    }
    execute(*primitive, copy_x ? padded : x, slice, result, scratch.scratchpad);
    if (!copy_y) return;
    for (int64_t r = 0; r < m; ++r) std::copy_n(result + r * slice.n, slice.n, y + r * ldy);
  }

  const bf16* copy_rows(const bf16* x, int64_t ldx, int64_t m, int64_t bucket, Buffer& to) const {
    const int64_t k = in_features();
    to.reserve(static_cast<size_t>(bucket * k) * sizeof(bf16));
    auto* rows = reinterpret_cast<bf16*>(to.data());
    for (int64_t r = 0; r < m; ++r) std::copy_n(x + r * ldx, k, rows + r * k);
    std::fill(rows + m * k, rows + bucket * k, bf16{0});
    return rows;
  }

  void execute(const Primitive& primitive, const bf16* x, const Slice& slice, float* y, Buffer& scratchpad) const {
    calling_onednn("a bf16 product", [&] {
      const dnnl::engine& engine = context_->engine();
      scratchpad.reserve(primitive.scratchpad.get_size());
      dnnl::stream stream(engine);
      // oneDNN takes non-const handles, although it only reads x and the weights.
      primitive.matmul.execute(stream,
                               {{DNNL_ARG_SRC, memory(primitive.x, engine, const_cast<bf16*>(x))},
                                {DNNL_ARG_WEIGHTS, memory(primitive.w, engine, slice.weights.data())},
                                {DNNL_ARG_DST, memory(primitive.y, engine, y)},
                                {DNNL_ARG_SCRATCHPAD, memory(primitive.scratchpad, engine, scratchpad.data())}});
      stream.wait();
      return 0;
    });
  }

  std::shared_ptr<OneDnnContext> context_;  // shared with all weights that are packed with the same engine choice
  std::vector<Slice> slices_;
  size_t num_bytes_ = 0;
};

}  // namespace

void cap_onednn_isa() {
  static const bool is_done = [] {
    using dnnl::cpu_isa;
    switch (cpu_features().isa()) {
      case CpuIsa::kPortable: dnnl::set_max_cpu_isa(cpu_isa::sse41); break;
      case CpuIsa::kAvx2: dnnl::set_max_cpu_isa(cpu_isa::avx2); break;
      case CpuIsa::kAvx512: dnnl::set_max_cpu_isa(cpu_isa::avx512_core); break;
      case CpuIsa::kAvx512Bf16: dnnl::set_max_cpu_isa(cpu_isa::avx512_core_bf16); break;
      case CpuIsa::kAmx: break;  // no cap, because oneDNN supports matrix instructions that our kernels do not use
    }
    return true;
  }();
  (void)is_done;
}

std::shared_ptr<OneDnnContext> make_onednn_context() {
  cap_onednn_isa();
  return calling_onednn("starting", [] { return std::make_shared<OneDnnContext>(); });
}

std::unique_ptr<PackedLinear> pack_onednn(std::span<const TensorView> parts, std::shared_ptr<OneDnnContext> context,
                                          ThreadPool* pool) {
  return std::make_unique<OneDnnLinear>(StackedRows(parts, DType::kBF16), std::move(context), pool);
}

int64_t onednn_row_bucket(int64_t m) {
  EPS_CHECK_GT(m, 0);
  EPS_CHECK_LE(m, kMaxRows);
  return (m + kRowStep - 1) / kRowStep * kRowStep;
}

std::vector<std::string> onednn_implementations(const OneDnnContext& context) { return context.implementations(); }

}  // namespace eps::ops
