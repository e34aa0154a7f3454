// The transformer decoder of one rank. It depends only on ModelSpec and the interface of op sets, not on a model family
// or a device.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "epsmoe/error.h"
#include "epsmoe/stop.h"
#include "exec/moe_layer.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/token_split.h"

namespace eps::model {

// The output of a step for a sequence: nothing, the next token, or the logits after its last token or after each token.
enum class StepOutput : uint8_t { kNone, kToken, kLastLogits, kAllLogits };

// Samples a token from logits [vocab] in host memory, which it may modify; returns kNoToken if one is NaN or infinite.
// Called on the rank's thread.
using HostSampler = std::function<int32_t(std::span<float> logits)>;

// New tokens of one sequence, which follow those in its cache.
struct SequenceChunk {
  KvCache* cache = nullptr;
  std::span<const int32_t> ids;
  StepOutput output = StepOutput::kToken;
  ops::SampleParams params = {};              // how the op set samples the token
  const HostSampler* host_sampler = nullptr;  // if not null, samples the token instead
  int home_rank = 0;                          // the rank that the sequence belongs to, which computes its output
};

// Receives the logits [vocab] after token `position` of chunk `sequence`; they are valid during the call.
using LogitSink = std::function<void(size_t sequence, int64_t position, std::span<const float> logits)>;

// kInput: logits of a token are NaN or infinite, which must not be turned into a text or a score.
class LogitsError : public Error {
 public:
  LogitsError();
};

class Decoder {
 public:
  // All references outlive the decoder; `trace` may be null. `model` is the rank's part of the strategy.
  Decoder(const Model& model, ops::OpSet& ops, comm::Communicator& comm, const plan::Planner& planner,
          plan::PipelineOption pipeline, exec::TraceRecorder* trace, StopToken stop = {},
          plan::Strategy strategy = plan::Strategy::kDpEp);

  // Runs one step. Every rank calls this once per step, even without sequences. With data-parallel attention, `chunks`
  // are those of this rank's sequences; else those of all ranks, in the same order everywhere and with this rank's part
  // of each cache. `tokens_per_rank` [num_ranks] counts the tokens of all chunks of the step by their home rank.
  // `sink`, which may be empty if no chunk needs logits, gets those of chunks whose home is this rank. Returns the
  // token of each chunk, or kNoToken if its output is not a token or belongs to another rank.
  //
  // Errors  LogitsError on the ranks that sampled from such logits; exec::RouterError on all ranks, unless layers are
  //         routed on the device; kInterrupted: the stop token was set, which one rank may notice before the others
  std::vector<int32_t> forward(std::span<const SequenceChunk> chunks, std::span<const int64_t> tokens_per_rank,
                               const LogitSink& sink);

  // Runs the layers of the last step again and checks the logits of every router, in order to name the first router
  // with invalid ones: layers that are routed on the device do not check them. Writes the same values into the caches
  // again. All ranks call this with the arguments of that step, after one of them has thrown LogitsError.
  //
  // Errors  exec::RouterError on the ranks that find one
  void check_routers();

  // Waits until this rank no longer accesses the memory of other ranks. Has to be called on every rank before any of
  // them is destroyed.
  void wait() noexcept { moe_.wait(); }

  const exec::MoeStats& stats() const { return moe_.stats(); }

 private:
  void begin_step(std::span<const SequenceChunk> chunks, std::span<const int64_t> tokens_per_rank);
  // Whether a step of these chunks makes the same calls as all others of its number of tokens, so that a device can
  // record and replay it.
  bool is_repeatable(std::span<const SequenceChunk> chunks) const;
  // How a repeatable step runs. Ranks that wait for each other on the device must all record or replay it, or none.
  struct RepeatableRun {
    int64_t key;          // of OpSet::run_step()
    ops::StepRun own;     // what this rank would do alone
    ops::StepRun of_all;  // the least of all ranks
  };
  // Empty: the step of at least one rank is not repeatable. All ranks get the same answer, which takes one exchange if
  // there are several.
  std::optional<RepeatableRun> find_repeatable_run(std::span<const SequenceChunk> chunks);
  void run_repeatable(const RepeatableRun& run);
  // `stop` is polled between layers.
  void run_layers(const StopToken& stop);
  void attention(int layer);
  // Each writes the output of all heads, before the output projection. x [T, H] in the compute dtype.
  void latent_attention(int layer, const arch::LatentAttention& attention, const AttentionWeights& weights,
                        TensorView x, MutableTensorView out);
  void grouped_attention(int layer, const arch::GroupedAttention& attention, const AttentionWeights& weights,
                         TensorView x, MutableTensorView out);
  void norm(TensorView x, const Norm& weight, MutableTensorView out);
  void add_norm(const Norm& weight, MutableTensorView out);
  void feed_forward(int layer);
  void residual_mlp(int layer, const LayerWeights& weights);
  // out = mlp(normed_)
  void dense_mlp(const MlpWeights& mlp, BlockExchange& ranks, MutableTensorView out);
  struct Projection {
    const Linear* linear;
    MutableTensorView out;
  };
  // Computes several projections of the same x in one call.
  void project(std::initializer_list<Projection> projections, TensorView x_compute);
  TensorView compute_copy(TensorView x, Buffer& memory);
  static std::vector<LogitRow> logit_rows(std::span<const SequenceChunk> chunks);
  TensorView gather_rows(TensorView hidden, std::span<const LogitRow> rows);
  void compute_logits(TensorView hidden);
  // Passes the logits of `rows`, which are in logits_, to `sink`, or samples from them into `tokens`, depending on the
  // output of each row's chunk.
  void deliver(std::span<const SequenceChunk> chunks, std::span<const LogitRow> rows, const LogitSink& sink,
               std::span<int32_t> tokens);
  void sample_tokens(std::span<const SequenceChunk> chunks, std::span<const LogitRow> rows, std::span<int32_t> tokens);
  int32_t sample_on_host(size_t row, const HostSampler& sampler);
  const float* logits_on_host();
  void traced(int layer, const char* name, const std::function<void()>& body);

  const Model& model_;
  const arch::ModelSpec& spec_;
  ops::OpSet& ops_;
  comm::Communicator& comm_;
  exec::TraceRecorder* trace_;
  StopToken stop_;
  std::unique_ptr<TokenSplit> split_;
  exec::MoeLayerRunner moe_;
  std::vector<ops::MoeWeights> moe_weights_;  // by layer; experts of other ranks are null
  DType act_;                                 // of activations

  // State of the current step.
  bool checks_routers_ = false;
  std::vector<int64_t> own_tokens_;  // S of each rank
  int64_t num_tokens_ = 0;           // T: of attention on this rank
  int64_t num_own_ = 0;              // S: of the residual stream on this rank
  std::vector<int32_t> ids_;
  std::vector<int32_t> positions_;
  std::vector<ops::StepSequence> sequences_;
  struct Memory {
    explicit Memory(MemoryResource& m)
        : hidden(m),
          normed(m),
          compute(m),
          q(m),
          q_low(m),
          kv(m),
          v(m),
          attention_out(m),
          delta(m),
          gate_up(m),
          act(m),
          logits(m),
          last(m),
          last_normed(m),
          moe_input(m),
          residual(m) {}
    Buffer hidden, normed, compute, q, q_low, kv, v, attention_out, delta, gate_up, act, logits, last, last_normed,
        moe_input, residual;
  } memory_;
  MutableTensorView embedded_;   // [T, H] f32, of which hidden_ is a part
  MutableTensorView hidden_;     // [S, H] f32, the residual stream
  MutableTensorView normed_;     // [S, H] act
  MutableTensorView delta_;      // [S, H] act, the output of a block
  MutableTensorView moe_input_;  // [S, H] act, of layers with a dense FFN beside the experts
  TensorView pending_;           // delta_ until it has been added to hidden_; else empty
  MutableTensorView logits_;     // [rows, vocab] f32
  Buffer host_logits_, host_row_;
};

}  // namespace eps::model
