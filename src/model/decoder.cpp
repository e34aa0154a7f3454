#include "model/decoder.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/clock.h"
#include "base/stop.h"

namespace eps::model {
namespace {

// Rows of logits that are computed at a time. A row of [vocab] f32 is large, so those of all positions of a long prompt
// would not fit in memory together.
constexpr int64_t kLogitBlock = 64;

// The largest number of tokens of a rank in a step that is recorded, which computes the logits of all of them at once.
// On several ranks, the host's part in a layer takes longer than in one on a single device, so larger steps gain from
// being recorded, too.
constexpr int64_t most_repeatable_tokens(int num_ranks) { return num_ranks == 1 ? kLogitBlock : 256; }

}  // namespace

LogitsError::LogitsError()
    : Error(
          ErrorKind::kInput, "logits",
          "the model produced NaN or Inf logits; try `epsmoe inspect`, and downloading the checkpoint's files again") {}

Decoder::Decoder(const Model& model, ops::OpSet& ops, comm::Communicator& comm, const plan::Planner& planner,
                 plan::PipelineOption pipeline, exec::TraceRecorder* trace, StopToken stop, plan::Strategy strategy)
    : model_(model),
      spec_(model.spec()),
      ops_(ops),
      comm_(comm),
      trace_(trace),
      stop_(stop),
      split_(make_token_split(strategy, ops, comm)),
      moe_(ops, comm, planner, pipeline, trace, strategy),
      moe_weights_(model.layers().size()),
      act_(ops.activation_dtype()),
      memory_(ops.memory()),
      host_logits_(ops.staging_memory()),
      host_row_(ops.staging_memory()) {
  if (spec_.first_moe_layer() < 0) return;
  // Split experts are all on every rank.
  const bool is_spread = strategy != plan::Strategy::kTpTp;
  const moe::ExpertPlacement placement = moe::place_experts(spec_.moe.gate.num_experts, is_spread ? comm.size() : 1);
  for (size_t i = 0; i < model.layers().size(); ++i) {
    const LayerWeights& layer = model.layers()[i];
    if (!layer.experts.empty()) moe_weights_[i] = rank_weights(layer, placement, is_spread ? comm.rank() : 0);
  }
}

void Decoder::traced(int layer, const char* name, const std::function<void()>& body) {
  if (trace_ == nullptr) return body();
  const int64_t begin = now_ns();
  body();
  ops_.wait();
  trace_->add(comm_.rank(), {{name, plan::Lane::kCompute, layer, -1, begin, now_ns()}});
}

std::vector<int32_t> Decoder::forward(std::span<const SequenceChunk> chunks, std::span<const int64_t> tokens_per_rank,
                                      const LogitSink& sink) {
  const ComputingThread computing(ops_.thread_pool());
  begin_step(chunks, tokens_per_rank);
  std::vector<int32_t> tokens(chunks.size(), ops::kNoToken);
  std::vector<LogitRow> rows = logit_rows(chunks);
  if (const auto run = find_repeatable_run(chunks)) {
    run_repeatable(*run);
    deliver(chunks, rows, sink, tokens);
    return tokens;
  }
  run_layers(stop_);
  traced(-1, "logits", [&] {
    const TensorView hidden = split_->bring_home(hidden_, rows);
    for (size_t first = 0; first < rows.size(); first += kLogitBlock) {
      const auto block = std::span(rows).subspan(first, std::min<size_t>(kLogitBlock, rows.size() - first));
      throw_if_stopped(stop_);
      compute_logits(gather_rows(hidden, block));
      deliver(chunks, block, sink, tokens);
    }
  });
  return tokens;
}

void Decoder::begin_step(std::span<const SequenceChunk> chunks, std::span<const int64_t> tokens_per_rank) {
  ids_.clear();
  positions_.clear();
  sequences_.clear();
  for (const SequenceChunk& chunk : chunks) {
    const int64_t first = chunk.cache->num_tokens();
    const int64_t count = std::ssize(chunk.ids);
    chunk.cache->extend(count);
    sequences_.push_back(chunk.cache->step_sequence(std::ssize(ids_), count));
    ids_.insert(ids_.end(), chunk.ids.begin(), chunk.ids.end());
    for (int64_t i = 0; i < count; ++i) positions_.push_back(static_cast<int32_t>(first + i));
  }
  num_tokens_ = std::ssize(ids_);
  const std::span<const int64_t> own_tokens = split_->begin_step(tokens_per_rank, num_tokens_);
  own_tokens_.assign(own_tokens.begin(), own_tokens.end());
  num_own_ = own_tokens_[static_cast<size_t>(comm_.rank())];
  ops_.begin_step({ids_, positions_, sequences_});
  if (spec_.first_moe_layer() >= 0) moe_.begin_step(own_tokens_, spec_.moe.gate.top_k);
  const Shape shape{num_own_, spec_.hidden};
  embedded_ = memory_.hidden.view(DType::kF32, {num_tokens_, spec_.hidden});
  hidden_ = embedded_.rows(split_->first_own(), split_->first_own() + num_own_);
  normed_ = memory_.normed.view(act_, shape);
  delta_ = memory_.delta.view(act_, shape);
  if (spec_.moe.residual_inner > 0) moe_input_ = memory_.moe_input.view(act_, shape);
}

bool Decoder::is_repeatable(std::span<const SequenceChunk> chunks) const {
  // Every sequence has one new token whose logits are needed, and tracing, which waits after every block, is off. A
  // rank without tokens takes part in the layers of the others.
  return (num_tokens_ > 0 || comm_.size() > 1) && num_tokens_ <= most_repeatable_tokens(comm_.size()) &&
         trace_ == nullptr && std::ranges::all_of(chunks, [](const SequenceChunk& c) {
           return c.ids.size() == 1 && c.output != StepOutput::kNone;
         });
}

std::optional<Decoder::RepeatableRun> Decoder::find_repeatable_run(std::span<const SequenceChunk> chunks) {
  const bool repeatable = is_repeatable(chunks);
  // A replayed step does not call compute_logits, and the previous step may have left logits_ with other rows. This may
  // allocate, which next_run() has to know.
  if (repeatable && num_tokens_ > 0) logits_ = memory_.logits.view(DType::kF32, {num_tokens_, spec_.vocab_size});
  if (comm_.size() == 1) {
    if (!repeatable) return std::nullopt;
    const ops::StepRun run = ops_.next_run(num_tokens_);
    return RepeatableRun{num_tokens_, run, run};
  }
  const int64_t most = most_repeatable_tokens(comm_.size());
  if (!moe_.can_run_without_host() || moe_.tokens_class() > most) return std::nullopt;
  // The plan of the layers depends on the tokens of all ranks, so the key does, too.
  const int64_t key = num_tokens_ + moe_.tokens_class() * (most + 1);
  const ops::StepRun own = ops_.next_run(key);
  constexpr std::byte kNotRepeatable{0xff};
  const std::byte mine = repeatable ? static_cast<std::byte>(own) : kNotRepeatable;
  ops::StepRun of_all = own;
  for (const std::vector<std::byte>& other : comm_.all_gather(std::span(&mine, 1))) {
    if (other.front() == kNotRepeatable) return std::nullopt;
    of_all = std::min(of_all, static_cast<ops::StepRun>(other.front()));
  }
  return RepeatableRun{key, own, of_all};
}

void Decoder::run_repeatable(const RepeatableRun& run) {
  const auto body = [&] {
    run_layers({});  // without a stop token: the step is short, and interrupting it could spoil a recording
    if (num_tokens_ > 0) compute_logits(hidden_);
  };
  const bool has_peers = comm_.size() > 1;
  // The first run of a step allocates memory, during which no GPU may wait for another one without the hosts.
  using WithoutHost = exec::MoeLayerRunner::WithoutHost;
  if (has_peers) {
    moe_.run_without_host(run.of_all == ops::StepRun::kRun ? WithoutHost::kPrepare : WithoutHost::kYes);
  }
  if (run.own != ops::StepRun::kRun && run.of_all == ops::StepRun::kRun) return body();
  // A rank that still records allocates, so the others launch their steps when all have recorded.
  const bool was_run = ops_.run_step(run.key, body, [&] {
    if (has_peers && run.of_all == ops::StepRun::kRecord) comm_.barrier();
  });
  if (!was_run) moe_.count_repeated(spec_.num_moe_layers());
}

void Decoder::run_layers(const StopToken& stop) {
  ops_.embed(model_.embedding(), embedded_);
  pending_ = {};
  for (int layer = 0; layer < spec_.num_layers(); ++layer) {
    throw_if_stopped(stop);
    if (num_tokens_ > 0) traced(layer, "attention", [&] { attention(layer); });
    feed_forward(layer);
  }
  if (pending_) ops_.add(hidden_, pending_);
}

void Decoder::feed_forward(int layer) {
  const LayerWeights& weights = model_.layers()[static_cast<size_t>(layer)];
  TensorView moe_input = normed_;
  if (weights.residual.down != nullptr) {
    residual_mlp(layer, weights);
    moe_input = moe_input_;
  } else {
    add_norm(weights.post_attention_norm, normed_);
  }
  if (weights.experts.empty()) {
    if (num_tokens_ > 0) traced(layer, "dense_ffn", [&] { dense_mlp(weights.dense, split_->dense_ffn(), delta_); });
  } else {
    const ops::RouterWeights router = router_weights(weights);
    if (checks_routers_) moe_.check_router(layer, spec_.moe.gate, router, moe_input);
    moe_.run(layer, spec_.moe.gate, router, moe_weights_[static_cast<size_t>(layer)], moe_input, delta_);
  }
  pending_ = delta_;
}

// The dense FFN beside the experts, which reads the residual stream after attention; the experts of such a layer read
// it before (see attention()).
void Decoder::residual_mlp(int layer, const LayerWeights& weights) {
  add_norm(weights.residual_norm, normed_);
  if (num_tokens_ == 0) return;
  const MutableTensorView out = memory_.residual.view(act_, {num_own_, spec_.hidden});
  traced(layer, "dense_ffn", [&] { dense_mlp(weights.residual, split_->residual_ffn(), out); });
  ops_.add(hidden_, out);
}

// out = norm(x), of the model's kind
void Decoder::norm(TensorView x, const Norm& weight, MutableTensorView out) {
  if (spec_.norm == arch::NormKind::kRms) {
    ops_.rms_norm(x, weight.view(), spec_.norm_eps, out);
  } else {
    ops_.layer_norm(x, weight.view(), spec_.norm_eps, out);
  }
}

// Adds the output of the previous block to the residual stream, then out = norm(hidden_).
void Decoder::add_norm(const Norm& weight, MutableTensorView out) {
  if (spec_.norm == arch::NormKind::kRms) {
    ops_.add_rms_norm(hidden_, pending_, weight.view(), spec_.norm_eps, out);
  } else {
    if (pending_) ops_.add(hidden_, pending_);
    ops_.layer_norm(hidden_, weight.view(), spec_.norm_eps, out);
  }
  pending_ = {};
}

void Decoder::dense_mlp(const MlpWeights& mlp, BlockExchange& ranks, MutableTensorView out) {
  const TensorView x = ranks.enter(compute_copy(normed_, memory_.compute));
  const int64_t inner = mlp.down->in_features();
  const MutableTensorView gate_up = memory_.gate_up.view(act_, {x.dim(0), 2 * inner});
  const MutableTensorView act = memory_.act.view(ops_.compute_dtype(), {x.dim(0), inner});
  const ops::LinearTask up{mlp.gate_up.get(), x, gate_up};
  ops_.linear(std::span(&up, 1));
  ops_.silu_mul(gate_up, act);
  const ops::LinearTask down{mlp.down.get(), act, ranks.output(out)};
  ops_.linear(std::span(&down, 1));
  ranks.leave(out);
}

// Computes logits_ [n, vocab] from `hidden` [n, H] f32: the final norm and the output matrix.
void Decoder::compute_logits(TensorView hidden) {
  const int64_t n = hidden.dim(0);
  const MutableTensorView normed = memory_.last_normed.view(act_, {n, spec_.hidden});
  norm(hidden, model_.final_norm(), normed);
  logits_ = memory_.logits.view(DType::kF32, {n, spec_.vocab_size});
  const ops::LinearTask task{&model_.lm_head(), compute_copy(normed, memory_.compute), logits_};
  ops_.linear(std::span(&task, 1));
}

std::vector<LogitRow> Decoder::logit_rows(std::span<const SequenceChunk> chunks) {
  std::vector<LogitRow> rows;
  int64_t begin = 0;
  for (size_t s = 0; s < chunks.size(); ++s) {
    const int64_t count = std::ssize(chunks[s].ids);
    const int64_t from = chunks[s].output == StepOutput::kAllLogits ? 0 : std::max<int64_t>(0, count - 1);
    for (int64_t i = from; i < count && chunks[s].output != StepOutput::kNone; ++i) {
      rows.push_back({s, chunks[s].cache->num_tokens() - count + i, begin + i, chunks[s].home_rank});
    }
    begin += count;
  }
  return rows;
}

TensorView Decoder::gather_rows(TensorView hidden, std::span<const LogitRow> rows) {
  const auto row_bytes = static_cast<size_t>(spec_.hidden) * sizeof(float);
  std::vector<const std::byte*> sources;
  for (const LogitRow& r : rows) {
    sources.push_back(static_cast<const std::byte*>(hidden.data()) + static_cast<size_t>(r.row) * row_bytes);
  }
  const MutableTensorView out = memory_.last.view(DType::kF32, {std::ssize(rows), spec_.hidden});
  ops_.gather_rows(sources, out);
  return out;
}

void Decoder::deliver(std::span<const SequenceChunk> chunks, std::span<const LogitRow> rows, const LogitSink& sink,
                      std::span<int32_t> tokens) {
  const auto needs_token = [&](const LogitRow& r) { return chunks[r.sequence].output == StepOutput::kToken; };
  if (std::ranges::any_of(rows, needs_token)) sample_tokens(chunks, rows, tokens);
  if (std::ranges::all_of(rows, needs_token)) return;
  const float* logits = logits_on_host();
  const auto vocab = static_cast<size_t>(spec_.vocab_size);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!needs_token(rows[i])) sink(rows[i].sequence, rows[i].position, std::span(logits + i * vocab, vocab));
  }
}

void Decoder::sample_tokens(std::span<const SequenceChunk> chunks, std::span<const LogitRow> rows,
                            std::span<int32_t> tokens) {
  // The op set samples all rows, although the tokens of some may not be used: chunks with different outputs are rare in
  // one step, and greedy sampling of an unused row costs little.
  std::vector<ops::SampleParams> params;
  for (const LogitRow& r : rows) params.push_back(chunks[r.sequence].params);
  std::vector<int32_t> sampled(rows.size(), ops::kNoToken);
  const auto is_on_host = [&](const LogitRow& r) { return chunks[r.sequence].host_sampler != nullptr; };
  if (!std::ranges::all_of(rows, is_on_host)) ops_.pick_tokens(logits_, params, sampled);
  moe_.check_peers();  // pick_tokens has waited for the step
  for (size_t i = 0; i < rows.size(); ++i) {
    const SequenceChunk& chunk = chunks[rows[i].sequence];
    if (chunk.output != StepOutput::kToken) continue;
    if (chunk.host_sampler != nullptr) sampled[i] = sample_on_host(i, *chunk.host_sampler);
    if (sampled[i] == ops::kNoToken) throw LogitsError();
    tokens[rows[i].sequence] = sampled[i];
  }
}

// Passes a copy to the sampler, which may modify it, because the logits of the step may be needed again.
int32_t Decoder::sample_on_host(size_t row, const HostSampler& sampler) {
  const auto i = static_cast<int64_t>(row);
  const MutableTensorView host = host_row_.view(DType::kF32, {1, spec_.vocab_size});
  ops_.download(logits_.rows(i, i + 1), host.data());
  moe_.check_peers();
  return sampler(std::span(host.as<float>(), static_cast<size_t>(spec_.vocab_size)));
}

void Decoder::check_routers() {
  const ComputingThread computing(ops_.thread_pool());
  if (spec_.first_moe_layer() < 0) return;
  moe_.begin_step(own_tokens_, spec_.moe.gate.top_k);
  checks_routers_ = true;
  try {
    run_layers(stop_);
  } catch (...) {
    checks_routers_ = false;
    throw;
  }
  checks_routers_ = false;
}

const float* Decoder::logits_on_host() {
  if (ops_.memory().on_host()) return logits_.as<const float>();
  const MutableTensorView host = host_logits_.view(DType::kF32, logits_.shape());
  ops_.download(logits_, host.data());
  moe_.check_peers();
  return host.as<const float>();
}

}  // namespace eps::model
