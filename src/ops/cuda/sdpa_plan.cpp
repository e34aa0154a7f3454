#include "ops/cuda/sdpa_plan.h"

#include <cudnn_frontend.h>

#include <unordered_map>

#include "ops/cuda/library_check.h"

namespace eps::cuda {
namespace {

namespace fe = cudnn_frontend;

void check(fe::error_t error, const CallSite& site) {
  if (error.is_bad()) raise_library_error("cuDNN", error.get_message().c_str(), site);
}
#define EPS_CUDNN_FRONTEND(call) check((call), {#call, __FILE__, __LINE__})

enum TensorId : int64_t { kQ = 1, kK, kV, kO, kQLength, kKLength, kQOffset, kKOffset, kVOffset, kOOffset, kSinks };

}  // namespace

class SdpaPlan::Graph {
 public:
  Graph(const SdpaPlanKey& key, cudnnHandle_t handle) : is_ragged_(key.ragged) {
    graph_.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    const auto index = [&](const char* name, TensorId id, int64_t count) {
      return graph_.tensor(fe::graph::Tensor_attributes()
                               .set_name(name)
                               .set_uid(id)
                               .set_dim({count, 1, 1, 1})
                               .set_stride({1, 1, 1, 1})
                               .set_data_type(fe::DataType_t::INT32));
    };
    // Rows [*, row_heads, dim], of which `heads` are used. In a ragged batch, the offsets determine where each sequence
    // begins.
    const auto describe = [&](auto& tensor, int64_t length, int64_t heads, int64_t row_heads, int64_t dim,
                              const char* offset_name, TensorId offset_id) -> auto& {
      tensor.set_dim({key.batch, heads, length, dim}).set_stride({length * row_heads * dim, dim, row_heads * dim, 1});
      if (key.ragged) tensor.set_ragged_offset(index(offset_name, offset_id, key.batch + 1));
      return tensor;
    };
    const auto input = [&](const char* name, TensorId id, int64_t length, int64_t heads, int64_t row_heads, int64_t dim,
                           const char* offset_name, TensorId offset_id) {
      fe::graph::Tensor_attributes tensor;
      tensor.set_name(name).set_uid(id);
      return graph_.tensor(describe(tensor, length, heads, row_heads, dim, offset_name, offset_id));
    };
    auto q = input("q", kQ, key.q_length, key.heads, key.all_heads, key.q_dim, "q_offset", kQOffset);
    auto k = input("k", kK, key.k_length, key.kv_heads, key.kv_heads, key.q_dim, "k_offset", kKOffset);
    auto v = input("v", kV, key.k_length, key.kv_heads, key.kv_heads, key.v_dim, "v_offset", kVOffset);
    auto options = fe::graph::SDPA_attributes()
                       .set_name("prefill")
                       .set_generate_stats(false)
                       .set_attn_scale(key.scale)
                       .set_diagonal_alignment(fe::DiagonalAlignment_t::BOTTOM_RIGHT)
                       .set_diagonal_band_right_bound(0);
    if (key.ragged) {
      options.set_padding_mask(true)
          .set_seq_len_q(index("q_length", kQLength, key.batch))
          .set_seq_len_kv(index("k_length", kKLength, key.batch));
    }
    if (key.window > 0) options.set_diagonal_band_left_bound(static_cast<int>(key.window));
    if (key.has_sinks) {
      options.set_sink_token(graph_.tensor(fe::graph::Tensor_attributes()
                                               .set_name("sinks")
                                               .set_uid(kSinks)
                                               .set_dim({1, key.heads, 1, 1})
                                               .set_stride({key.heads, 1, 1, 1})
                                               .set_data_type(fe::DataType_t::FLOAT)));
    }
    auto [o, stats] = graph_.sdpa(q, k, v, options);
    describe(*o, key.q_length, key.heads, key.all_heads, key.v_dim, "o_offset", kOOffset).set_output(true).set_uid(kO);
    EPS_CUDNN_FRONTEND(graph_.build(handle, {fe::HeurMode_t::A}));
    int64_t bytes = 0;
    EPS_CUDNN_FRONTEND(graph_.get_workspace_size(bytes));
    workspace_bytes_ = static_cast<size_t>(bytes);
  }

  size_t workspace_bytes() const { return workspace_bytes_; }

  void execute(cudnnHandle_t handle, const SdpaTensors& t, std::byte* workspace) {
    std::unordered_map<int64_t, void*> tensors = {
        {kQ, const_cast<nv_bf16*>(t.q)},
        {kK, const_cast<nv_bf16*>(t.k)},
        {kV, const_cast<nv_bf16*>(t.v)},
        {kO, t.o},
    };
    if (is_ragged_) {
      tensors.insert({
          {kQLength, t.batch.q_length},
          {kKLength, t.batch.k_length},
          {kQOffset, t.batch.q_offset},
          {kKOffset, t.batch.k_offset},
          {kVOffset, t.batch.v_offset},
          {kOOffset, t.batch.o_offset},
      });
    }
    if (t.sinks != nullptr) tensors.insert({kSinks, const_cast<float*>(t.sinks)});
    EPS_CUDNN_FRONTEND(graph_.execute(handle, tensors, workspace));
  }

 private:
  bool is_ragged_;
  fe::graph::Graph graph_;
  size_t workspace_bytes_ = 0;
};

SdpaPlan::SdpaPlan(const SdpaPlanKey& key, cudnnHandle_t handle) : graph_(std::make_unique<Graph>(key, handle)) {}
SdpaPlan::~SdpaPlan() = default;

size_t SdpaPlan::workspace_bytes() const { return graph_->workspace_bytes(); }

void SdpaPlan::execute(cudnnHandle_t handle, const SdpaTensors& tensors, std::byte* workspace) {
  graph_->execute(handle, tensors, workspace);
}

SdpaPlans::~SdpaPlans() {
  plans_.clear();
  if (handle_ != nullptr) cudnnDestroy(handle_);
}

cudnnHandle_t SdpaPlans::handle() {
  if (handle_ == nullptr) EPS_CUDNN(cudnnCreate(&handle_));
  return handle_;
}

void SdpaPlans::set_stream(cudaStream_t stream) { EPS_CUDNN(cudnnSetStream(handle(), stream)); }

SdpaPlan& SdpaPlans::plan(const SdpaPlanKey& key) {
  auto& slot = plans_[key];
  if (!slot) slot = std::make_unique<SdpaPlan>(key, handle());
  return *slot;
}

}  // namespace eps::cuda
