#include "ops/cuda/mla_prefill_plan.h"

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

enum TensorId : int64_t { kQ = 1, kK, kV, kO, kQLength, kKLength, kQOffset, kKOffset, kVOffset, kOOffset };

}  // namespace

class MlaPrefillPlan::Graph {
 public:
  Graph(const MlaPlanKey& key, cudnnHandle_t handle) : is_ragged_(key.ragged) {
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
    const auto describe = [&](auto& tensor, int64_t length, int64_t row_heads, int64_t dim, const char* offset_name,
                              TensorId offset_id) -> auto& {
      tensor.set_dim({key.batch, key.heads, length, dim})
          .set_stride({length * row_heads * dim, dim, row_heads * dim, 1});
      if (key.ragged) tensor.set_ragged_offset(index(offset_name, offset_id, key.batch + 1));
      return tensor;
    };
    const auto input = [&](const char* name, TensorId id, int64_t length, int64_t row_heads, int64_t dim,
                           const char* offset_name, TensorId offset_id) {
      fe::graph::Tensor_attributes tensor;
      tensor.set_name(name).set_uid(id);
      return graph_.tensor(describe(tensor, length, row_heads, dim, offset_name, offset_id));
    };
    auto q = input("q", kQ, key.q_length, key.all_heads, key.q_dim, "q_offset", kQOffset);
    auto k = input("k", kK, key.k_length, key.heads, key.q_dim, "k_offset", kKOffset);
    auto v = input("v", kV, key.k_length, key.heads, key.v_dim, "v_offset", kVOffset);
    auto options = fe::graph::SDPA_attributes()
                       .set_name("mla_prefill")
                       .set_generate_stats(false)
                       .set_attn_scale(key.scale)
                       .set_diagonal_alignment(fe::DiagonalAlignment_t::BOTTOM_RIGHT)
                       .set_diagonal_band_right_bound(0);
    if (key.ragged) {
      options.set_padding_mask(true)
          .set_seq_len_q(index("q_length", kQLength, key.batch))
          .set_seq_len_kv(index("k_length", kKLength, key.batch));
    }
    auto [o, stats] = graph_.sdpa(q, k, v, options);
    describe(*o, key.q_length, key.all_heads, key.v_dim, "o_offset", kOOffset).set_output(true).set_uid(kO);
    EPS_CUDNN_FRONTEND(graph_.build(handle, {fe::HeurMode_t::A}));
    int64_t bytes = 0;
    EPS_CUDNN_FRONTEND(graph_.get_workspace_size(bytes));
    workspace_bytes_ = static_cast<size_t>(bytes);
  }

  size_t workspace_bytes() const { return workspace_bytes_; }

  void execute(cudnnHandle_t handle, const MlaPlanTensors& t, std::byte* workspace) {
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
    EPS_CUDNN_FRONTEND(graph_.execute(handle, tensors, workspace));
  }

 private:
  bool is_ragged_;
  fe::graph::Graph graph_;
  size_t workspace_bytes_ = 0;
};

MlaPrefillPlan::MlaPrefillPlan(const MlaPlanKey& key, cudnnHandle_t handle)
    : graph_(std::make_unique<Graph>(key, handle)) {}
MlaPrefillPlan::~MlaPrefillPlan() = default;

size_t MlaPrefillPlan::workspace_bytes() const { return graph_->workspace_bytes(); }

void MlaPrefillPlan::execute(cudnnHandle_t handle, const MlaPlanTensors& tensors, std::byte* workspace) {
  graph_->execute(handle, tensors, workspace);
}

}  // namespace eps::cuda
