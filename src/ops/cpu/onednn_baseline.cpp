#include "ops/cpu/onednn_baseline.h"

#include <algorithm>
#include <deque>
#include <dnnl.hpp>
#include <map>

#include "base/error.h"
#include "ops/cpu/onednn_gemm.h"
#include "ops/cpu/onednn_threads.h"

namespace eps::ops {

using dnnl::memory;

struct OneDnnBaseline::Impl {
  struct Product {
    dnnl::matmul matmul;
    memory x;
    memory weights;
    memory y;
    std::string implementation;
  };

  DType dtype;
  int num_threads;
  int64_t n;
  int64_t k;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::deque<Buffer> buffers;  // of the weights: large ones are freed faster than memory of the library's own
  memory plain_weights;
  std::vector<memory> packed;  // one for each layout that a primitive requires
  std::map<int64_t, Product> products;

  memory::data_type type() const { return dtype == DType::kF32 ? memory::data_type::f32 : memory::data_type::bf16; }

  memory make_memory(const memory::desc& layout) {
    return {layout, engine, buffers.emplace_back(layout.get_size()).data()};
  }

  memory pack(const memory::desc& layout) {
    const auto it = std::find_if(packed.begin(), packed.end(), [&](const memory& m) { return m.get_desc() == layout; });
    if (it != packed.end()) return *it;
    memory to = make_memory(layout);
    dnnl::reorder(plain_weights, to).execute(stream, plain_weights, to);
    stream.wait();
    packed.push_back(to);
    return to;
  }

  Product& product(int64_t m) {
    const auto it = products.find(m);
    if (it != products.end()) return it->second;
    const memory::desc x({m, k}, type(), memory::format_tag::ab);
    const memory::desc w({k, n}, type(), memory::format_tag::any);
    const memory::desc y({m, n}, memory::data_type::f32, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(x, w, y), engine);
    Product made{dnnl::matmul(desc), memory(x, engine, nullptr), pack(desc.weights_desc()), memory(y, engine, nullptr),
                 desc.impl_info_str()};
    return products.emplace(m, std::move(made)).first->second;
  }
};

OneDnnBaseline::OneDnnBaseline(DType dtype, const TensorView& weights, int num_threads) {
  EPS_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "the baseline computes in f32 or bf16, not {}",
            to_string(dtype));
  EPS_CHECK(weights.dtype() == dtype, "weights are {}, wanted {}", to_string(weights.dtype()), to_string(dtype));
  EPS_CHECK_EQ(weights.shape().rank(), 2);
  cap_onednn_isa();
  const OmpThreads threads(num_threads);
  impl_ = std::make_unique<Impl>();
  impl_->dtype = dtype;
  impl_->num_threads = num_threads;
  impl_->n = weights.dim(0);
  impl_->k = weights.dim(1);
  // The weights are copied because other layouts may be packed later, when the caller's weights no longer exist.
  const memory::desc plain({impl_->k, impl_->n}, impl_->type(), memory::format_tag::ba);
  impl_->plain_weights = impl_->make_memory(plain);
  const auto* bytes = static_cast<const std::byte*>(weights.data());
  std::copy_n(bytes, weights.num_bytes(), static_cast<std::byte*>(impl_->plain_weights.get_data_handle()));
}

OneDnnBaseline::~OneDnnBaseline() = default;

void OneDnnBaseline::run(int64_t m, const void* x, float* y) {
  const OmpThreads threads(impl_->num_threads);
  Impl::Product& product = impl_->product(m);
  product.x.set_data_handle(const_cast<void*>(x));
  product.y.set_data_handle(y);
  product.matmul.execute(impl_->stream,
                         {{DNNL_ARG_SRC, product.x}, {DNNL_ARG_WEIGHTS, product.weights}, {DNNL_ARG_DST, product.y}});
  impl_->stream.wait();
}

std::string OneDnnBaseline::implementation(int64_t m) {
  const OmpThreads threads(impl_->num_threads);
  return impl_->product(m).implementation;
}

}  // namespace eps::ops
