#include "ops/op_set.h"

#include <cstring>

#include "ops/peer_layer.h"
#include "ops/row_collectives.h"

namespace eps::ops {

void OpSet::upload(const void* from, MutableTensorView to) const {
  if (to.num_bytes() > 0) std::memcpy(to.data(), from, to.num_bytes());
}

void OpSet::download(TensorView from, void* to) const {
  if (from.num_bytes() > 0) std::memcpy(to, from.data(), from.num_bytes());
}

void OpSet::copy(TensorView from, MutableTensorView to) const {
  EPS_CHECK_EQ(from.num_bytes(), to.num_bytes());
  if (from.num_bytes() > 0) std::memcpy(to.data(), from.data(), from.num_bytes());
}

std::unique_ptr<PeerLayer> OpSet::make_peer_layer(comm::Communicator& /*comm*/) { return nullptr; }

std::unique_ptr<RowCollectives> OpSet::make_row_collectives(comm::Communicator& /*comm*/) { return nullptr; }

TensorView OpSet::place(TensorView host, Buffer& storage) const {
  if (memory().on_host()) return host;
  const MutableTensorView copy = storage.view(host.dtype(), host.shape());
  upload(host.data(), copy);
  return copy;
}

void OpSet::linear_silu_mul(std::span<const LinearTask> tasks, MutableTensorView gate_up, MutableTensorView act) {
  linear(tasks);
  silu_mul(gate_up, act);
}

void OpSet::store_heads(const GqaParams& params, const HeadNorms& norms, const RopeView& table, MutableTensorView q,
                        MutableTensorView k, TensorView v, int layer) {
  for (const auto& [rows, norm] : {std::pair(q, norms.q), std::pair(k, norms.k)}) {
    if (norm) {
      const MutableTensorView heads(rows.data(), rows.dtype(), {rows.numel() / params.head_dim, params.head_dim});
      rms_norm(heads, norm, norms.eps, heads);
    }
    rope(rows, params.head_dim, table);
  }
  store_keys(params, k, v, layer);
}

void OpSet::add_rms_norm(MutableTensorView hidden, TensorView delta, TensorView weight, float eps,
                         MutableTensorView out) {
  if (delta) add(hidden, delta);
  rms_norm(hidden, weight, eps, out);
}

}  // namespace eps::ops
