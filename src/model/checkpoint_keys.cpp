#include "model/checkpoint_keys.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace eps::model {
namespace {

using arch::KeyUse;
using arch::KnownKey;

constexpr KeyUse kUsed = KeyUse::kUsed;
constexpr KeyUse kHarmless = KeyUse::kHarmless;
constexpr KeyUse kWarned = KeyUse::kWarned;
constexpr KeyUse kRefused = KeyUse::kRefused;

bool is_off(const KnownKey& known, const io::Json& value) {
  if (value.is_null() || value == io::Json(false)) return true;
  if (value.is_structured() && value.empty()) return true;
  if (value.is_string() && value.get_ref<const std::string&>().empty()) return true;
  const io::Json off = io::Json::parse(known.off);
  return std::ranges::find(off, value) != off.end();
}

}  // namespace

KeyReport check_keys(CheckpointFile file, const io::JsonObject& object, std::span<const KnownKey> own) {
  KeyReport report;
  const auto find = [](std::span<const KnownKey> keys, std::string_view key) -> const KnownKey* {
    const auto it = std::ranges::find(keys, key, &KnownKey::key);
    return it == keys.end() ? nullptr : &*it;
  };
  for (const auto& [key, value] : object.value().items()) {
    const KnownKey* found = find(own, key);
    if (found == nullptr) found = find(known_keys(file), key);
    if (found == nullptr) {
      report.unknown.push_back(object.path_of(key));
    } else if (found->use == kWarned && !is_off(*found, value)) {
      report.warnings.push_back(fmt::format("{}: key \"{}\" = {} is not supported and has no effect ({})",
                                            object.where(), printable(object.path_of(key), 120),
                                            io::describe_json(value), found->why));
    } else if (found->use == kRefused && !is_off(*found, value)) {
      object.reject(key, fmt::format("it to be absent or off, because this program does not support {}", found->why));
    }
  }
  return report;
}

namespace {

constexpr KnownKey kConfigKeys[] = {
    // Read for every family (arch/config.h).
    {"bos_token_id", kUsed, ""},
    {"eos_token_id", kUsed, ""},
    {"model_type", kUsed, ""},
    {"original_max_position_embeddings", kUsed, ""},
    {"partial_rotary_factor", kUsed, ""},
    {"quantization_config", kUsed, ""},
    {"rope_parameters", kUsed, ""},
    {"rope_scaling", kUsed, ""},
    {"rope_theta", kUsed, ""},
    {"tie_word_embeddings", kUsed, ""},
    {"vocab_size", kUsed, ""},
    // Provenance, and classes to run in Python.
    {"_attn_implementation", kHarmless, ""},
    {"_attn_implementation_autoset", kHarmless, ""},
    {"_commit_hash", kHarmless, ""},
    {"_experts_implementation", kHarmless, ""},
    {"_name_or_path", kHarmless, ""},
    {"architectures", kHarmless, "model_type says the same"},
    {"auto_map", kHarmless, ""},
    {"id2label", kHarmless, "labels of classifiers"},
    {"label2id", kHarmless, "labels of classifiers"},
    {"model_name", kHarmless, ""},
    {"name_or_path", kHarmless, ""},
    {"problem_type", kHarmless, "for classifiers"},
    {"task_specific_params", kHarmless, "for pipelines"},
    {"tokenizer_class", kHarmless, "tokenizer.json has all of it"},
    {"transformers_version", kHarmless, ""},
    {"transformers_weights", kHarmless, ""},
    {"unsloth_fixed", kHarmless, ""},
    {"unsloth_version", kHarmless, ""},
    // The weights are read in their stored type, and the program decides on its own about caches and outputs.
    {"cache_implementation", kHarmless, ""},
    {"dtype", kHarmless, ""},
    {"is_decoder", kHarmless, ""},
    {"output_attentions", kHarmless, ""},
    {"output_hidden_states", kHarmless, ""},
    {"output_router_logits", kHarmless, ""},
    {"return_dict", kHarmless, ""},
    {"return_dict_in_generate", kHarmless, ""},
    {"torch_dtype", kHarmless, ""},
    {"torchscript", kHarmless, ""},
    {"use_bfloat16", kHarmless, ""},
    {"use_cache", kHarmless, ""},
    // Distribution or chunking of a computation, which does not change its result.
    {"chunk_size_feed_forward", kHarmless, ""},
    {"ep_size", kHarmless, ""},
    {"gradient_checkpointing", kHarmless, ""},
    {"max_seq_len_cached", kHarmless, ""},
    {"megablocks", kHarmless, ""},
    {"pretraining_tp", kHarmless, ""},
    {"tp_plan", kHarmless, ""},
    // Used only in training.
    {"attention_dropout", kHarmless, ""},
    {"attn_pdrop", kHarmless, ""},
    {"aux_loss_alpha", kHarmless, ""},
    {"emb_pdrop", kHarmless, ""},
    {"embd_pdrop", kHarmless, ""},
    {"enable_expert_tensor_parallelism", kHarmless, ""},
    {"hidden_dropout", kHarmless, ""},
    {"initializer_range", kHarmless, ""},
    {"moe_eval_capacity_factor", kHarmless, ""},
    {"moe_jitter_eps", kHarmless, ""},
    {"moe_loss_weight", kHarmless, ""},
    {"moe_min_capacity", kHarmless, ""},
    {"moe_train_capacity_factor", kHarmless, ""},
    {"resid_pdrop", kHarmless, ""},
    {"router_aux_loss_coef", kHarmless, ""},
    {"router_jitter_noise", kHarmless, ""},
    {"router_z_loss_coef", kHarmless, ""},
    {"seq_aux", kHarmless, ""},
    // Determined by keys that are read.
    {"qk_head_dim", kHarmless, "written by transformers from its two parts"},
    // Padding, and tokens of other kinds of models.
    {"cross_attention_hidden_size", kHarmless, "for encoder-decoder models"},
    {"decoder_start_token_id", kHarmless, "for encoder-decoder models"},
    {"pad_token_id", kHarmless, "batches are not padded"},
    {"prefix", kHarmless, "for pipelines"},
    {"sep_token_id", kHarmless, ""},
    {"tie_encoder_decoder", kHarmless, "for encoder-decoder models"},
    // Generation settings in config.json are used if there is no generation_config.json (parse_generation_config).
    {"bad_words_ids", kUsed, ""},
    {"begin_suppress_tokens", kUsed, ""},
    {"diversity_penalty", kWarned, "diverse beam search", "[0, 0.0]"},
    {"do_sample", kUsed, ""},
    {"early_stopping", kHarmless, "of beam search"},
    {"encoder_no_repeat_ngram_size", kUsed, ""},
    {"exponential_decay_length_penalty", kUsed, ""},
    {"forced_bos_token_id", kUsed, ""},
    {"forced_eos_token_id", kUsed, ""},
    {"length_penalty", kHarmless, "of beam search"},
    {"max_length", kUsed, ""},
    {"max_new_tokens", kUsed, ""},
    {"min_length", kUsed, ""},
    {"no_repeat_ngram_size", kUsed, ""},
    {"num_beam_groups", kUsed, ""},
    {"num_beams", kUsed, ""},
    {"num_return_sequences", kUsed, ""},
    {"output_scores", kHarmless, ""},
    {"remove_invalid_values", kHarmless, "NaN and Inf logits are errors"},
    {"repetition_penalty", kUsed, ""},
    {"suppress_tokens", kUsed, ""},
    {"temperature", kUsed, ""},
    {"top_k", kUsed, ""},
    {"top_p", kUsed, ""},
    {"typical_p", kUsed, ""},
    // Other kinds of models.
    {"add_cross_attention", kRefused, "cross-attention"},
    {"finetuning_task", kHarmless, ""},
    {"is_causal", kRefused, "attention to later tokens", "[true]"},
    {"is_encoder_decoder", kRefused, "encoder-decoder models"},
    {"pruned_heads", kRefused, "pruned attention heads"},
    {"sparse_attention_config", kRefused, "sparse attention"},
    // Settings of some families, which list those that they read. In models of other families transformers ignores
    // them, but in such a file they are probably meant to have an effect.
    {"attention_bias", kWarned, "biases of attention"},
    {"attention_multiplier", kWarned, "Granite's softmax scale"},
    {"attn_config", kWarned, "DBRX's attention settings"},
    {"clip_qkv", kWarned, "clipped queries, keys and values (OLMoE, DBRX)"},
    {"d_model", kWarned, "DBRX's hidden size"},
    {"decoder_sparse_step", kWarned, "dense layers between MoE layers (Qwen)", "[1]"},
    {"embedding_multiplier", kWarned, "Granite's scaled embedding", "[1, 1.0]"},
    {"experts_per_token", kWarned, "gpt-oss's top-k"},
    {"ffn_config", kWarned, "DBRX's expert settings"},
    {"first_k_dense_replace", kWarned, "dense first layers (DeepSeek, GLM)", "[0]"},
    {"head_dim", kWarned, "the size of a head"},
    {"hidden_act", kWarned, "an activation"},
    {"hidden_size", kWarned, "the hidden size"},
    {"index_head_dim", kWarned, "sparse attention (DeepSeek-V3.2)"},
    {"index_n_heads", kWarned, "sparse attention (DeepSeek-V3.2)"},
    {"index_topk", kWarned, "sparse attention (DeepSeek-V3.2)"},
    {"initial_context_length", kWarned, "gpt-oss's context before YaRN"},
    {"intermediate_size", kWarned, "the inner size of dense layers"},
    {"kv_lora_rank", kWarned, "latent attention (DeepSeek)"},
    {"layer_types", kWarned, "attention by layer"},
    {"logits_scaling", kWarned, "Granite's scaled logits", "[1, 1.0]"},
    {"max_position_embeddings", kWarned, "the context"},
    {"max_seq_len", kWarned, "DBRX's context"},
    {"max_window_layers", kHarmless, "Qwen's sliding windows, which use_sliding_window turns on"},
    {"mlp_bias", kWarned, "biases of dense layers"},
    {"mlp_only_layers", kWarned, "dense layers by number (Qwen)"},
    {"moe_intermediate_size", kWarned, "the inner size of experts (DeepSeek, Qwen, GLM)"},
    {"moe_layer_freq", kWarned, "dense layers between MoE layers (DeepSeek)", "[1]"},
    {"moe_layer_frequency", kWarned, "Arctic's dense layers between MoE layers", "[1]"},
    {"n_group", kWarned, "groups of experts (DeepSeek, GLM)", "[1]"},
    {"n_heads", kWarned, "DBRX's attention heads"},
    {"n_layers", kWarned, "DBRX's layers"},
    {"n_routed_experts", kWarned, "the number of experts (DeepSeek, GLM)"},
    {"n_shared_experts", kWarned, "shared experts (DeepSeek, GLM)", "[0]"},
    {"norm_topk_prob", kWarned, "normalised weights of experts"},
    {"num_attention_heads", kWarned, "the number of heads"},
    {"num_experts", kWarned, "the number of experts"},
    {"num_experts_per_tok", kWarned, "the experts of a token"},
    {"num_hidden_layers", kWarned, "the number of layers"},
    {"num_key_value_heads", kWarned, "the number of key-value heads"},
    {"num_local_experts", kWarned, "Mixtral's experts"},
    {"num_mtp_layers", kHarmless, "layers that predict further tokens are not run"},
    {"num_nextn_predict_layers", kHarmless, "layers that predict further tokens are not run"},
    {"parallel_attn_mlp_res", kWarned, "Arctic's residual beside the experts"},
    {"q_lora_rank", kWarned, "low-rank queries (DeepSeek)"},
    {"qk_nope_head_dim", kWarned, "latent attention (DeepSeek)"},
    {"qk_rope_head_dim", kWarned, "latent attention (DeepSeek)"},
    {"qkv_bias", kWarned, "biases of queries, keys and values (Qwen2)"},
    {"quantization", kRefused, "weights quantised by MLX"},
    {"residual_multiplier", kWarned, "Granite's scaled residual branches", "[1, 1.0]"},
    {"rms_norm_eps", kWarned, "the epsilon of norms"},
    {"rope_interleave", kWarned, "rotation of adjacent pairs (DeepSeek)"},
    {"routed_scaling_factor", kWarned, "scaled weights of experts (DeepSeek, GLM)", "[1, 1.0]"},
    {"router_logits_fp32", kHarmless, "the router computes in f32"},
    {"scoring_func", kWarned, "the scores of experts (DeepSeek)", "[\"softmax\"]"},
    {"shared_expert_intermediate_size", kWarned, "Qwen2's shared expert", "[0]"},
    {"sliding_window", kWarned, "sliding-window attention"},
    {"swiglu_alpha", kWarned, "gpt-oss's activation"},
    {"swiglu_limit", kWarned, "gpt-oss's activation"},
    {"topk_group", kWarned, "groups of experts (DeepSeek, GLM)", "[1]"},
    {"topk_method", kWarned, "the choice of experts (DeepSeek)", "[\"greedy\"]"},
    {"use_qk_norm", kWarned, "normalised queries and keys (GLM-4.5)"},
    {"use_residual", kWarned, "Arctic's residual beside the experts"},
    {"use_sliding_window", kWarned, "sliding-window attention"},
    {"v_head_dim", kWarned, "latent attention (DeepSeek)"},
};

constexpr KnownKey kRopeKeys[] = {
    {"attention_factor", kUsed, ""},
    {"beta_fast", kUsed, ""},
    {"beta_slow", kUsed, ""},
    {"factor", kUsed, ""},
    {"mscale", kUsed, ""},
    {"mscale_all_dim", kUsed, ""},
    {"original_max_position_embeddings", kUsed, ""},
    {"rope_theta", kUsed, ""},
    {"rope_type", kUsed, ""},
    {"truncate", kUsed, ""},
    {"type", kUsed, ""},
    {"finetuned", kHarmless, "provenance"},
    {"high_freq_factor", kUsed, ""},
    {"low_freq_factor", kUsed, ""},
    {"partial_rotary_factor", kUsed, ""},
    // Keys of scaling methods that are refused by name.
    {"long_factor", kHarmless, "longrope scaling"},
    {"mrope_section", kRefused, "multimodal rotation"},
    {"short_factor", kHarmless, "longrope scaling"},
};

constexpr KnownKey kGenerationKeys[] = {
    {"bos_token_id", kUsed, ""},
    {"do_sample", kUsed, ""},
    {"eos_token_id", kUsed, ""},
    {"max_new_tokens", kUsed, ""},
    {"temperature", kUsed, ""},
    {"top_k", kUsed, ""},
    {"top_p", kUsed, ""},
    {"_commit_hash", kHarmless, "provenance"},
    {"_from_model_config", kHarmless, "provenance"},
    {"_original_object_hash", kHarmless, "provenance"},
    {"transformers_version", kHarmless, "provenance"},
    {"cache_config", kHarmless, "the program manages its own cache"},
    {"cache_implementation", kHarmless, "the program manages its own cache"},
    {"compile_config", kHarmless, "of PyTorch"},
    {"continuous_batching_config", kHarmless, "of transformers' own server"},
    {"custom_generate", kWarned, "a generation loop of the checkpoint's own"},
    {"decoder_start_token_id", kHarmless, "for encoder-decoder models"},
    {"disable_compile", kHarmless, "of PyTorch"},
    {"early_stopping", kHarmless, "of beam search"},
    {"encoder_no_repeat_ngram_size", kUsed, ""},
    {"encoder_repetition_penalty", kUsed, ""},
    {"is_assistant", kHarmless, "speculation changes no result"},
    {"assistant_confidence_threshold", kHarmless, "speculation changes no result"},
    {"assistant_early_exit", kHarmless, "speculation changes no result"},
    {"assistant_ensemble_weight", kHarmless, "speculation changes no result"},
    {"assistant_lookbehind", kHarmless, "speculation changes no result"},
    {"max_matching_ngram_size", kHarmless, "speculation changes no result"},
    {"num_assistant_tokens", kHarmless, "speculation changes no result"},
    {"num_assistant_tokens_schedule", kHarmless, "speculation changes no result"},
    {"prompt_lookup_num_tokens", kHarmless, "speculation changes no result"},
    {"speculation_type", kHarmless, "speculation changes no result"},
    {"target_lookbehind", kHarmless, "speculation changes no result"},
    {"use_mtp", kHarmless, "speculation changes no result"},
    {"length_penalty", kHarmless, "of beam search"},
    {"low_memory", kHarmless, "contrastive search"},
    {"max_cache_len", kHarmless, "the program manages its own cache"},
    {"max_length", kUsed, ""},
    {"max_time", kUsed, ""},
    {"num_return_sequences", kUsed, ""},
    {"output_attentions", kHarmless, "outputs for programs"},
    {"output_hidden_states", kHarmless, "outputs for programs"},
    {"output_logits", kHarmless, "outputs for programs"},
    {"output_scores", kHarmless, "outputs for programs"},
    {"pad_token_id", kHarmless, "batches are not padded"},
    {"prefill_chunk_size", kHarmless, "changes no result"},
    {"remove_invalid_values", kHarmless, "NaN and Inf logits are errors"},
    {"renormalize_logits", kHarmless, "probabilities add up to 1 in any case"},
    {"return_dict_in_generate", kHarmless, "outputs for programs"},
    {"use_cache", kHarmless, "changes no result"},
    // Further options of samplers.
    {"bad_words_ids", kUsed, ""},
    {"begin_suppress_tokens", kUsed, ""},
    {"constraints", kUsed, ""},
    {"diversity_penalty", kWarned, "diverse beam search", "[0, 0.0]"},
    {"dola_layers", kUsed, ""},
    {"epsilon_cutoff", kUsed, ""},
    {"eta_cutoff", kUsed, ""},
    {"exponential_decay_length_penalty", kUsed, ""},
    {"force_words_ids", kUsed, ""},
    {"forced_bos_token_id", kUsed, ""},
    {"forced_eos_token_id", kUsed, ""},
    {"frequency_penalty", kUsed, ""},
    {"guidance_scale", kUsed, ""},
    {"min_length", kUsed, ""},
    {"min_new_tokens", kUsed, ""},
    {"min_p", kUsed, ""},
    {"no_repeat_ngram_size", kUsed, ""},
    {"num_beam_groups", kUsed, ""},
    {"num_beams", kUsed, ""},
    {"penalty_alpha", kUsed, ""},
    {"presence_penalty", kUsed, ""},
    {"repetition_penalty", kUsed, ""},
    {"sequence_bias", kUsed, ""},
    {"stop_strings", kUsed, ""},
    {"suppress_tokens", kUsed, ""},
    {"token_healing", kUsed, ""},
    {"top_h", kUsed, ""},
    {"typical_p", kUsed, ""},
    {"watermarking_config", kUsed, ""},
    {"chat_format", kHarmless, "a name of a chat template"},
    {"trust_remote_code", kHarmless, "no code of checkpoints is run"},
};

constexpr KnownKey kTokenizerKeys[] = {
    {"added_tokens", kUsed, ""},
    {"decoder", kUsed, ""},
    {"model", kUsed, ""},
    {"normalizer", kUsed, ""},
    {"post_processor", kUsed, ""},
    {"pre_tokenizer", kUsed, ""},
    {"version", kUsed, ""},
    {"padding", kHarmless, "of training batches"},
    {"truncation", kHarmless, "of training batches"},
};

constexpr KnownKey kTokenizerConfigKeys[] = {
    {"add_bos_token", kUsed, ""},
    // tokenizer.json contains these settings in the form that fast tokenizers use.
    {"add_prefix_space", kHarmless, "as tokenizer.json says"},
    {"added_tokens_decoder", kHarmless, "as tokenizer.json says"},
    {"additional_special_tokens", kHarmless, "as tokenizer.json says"},
    {"extra_special_tokens", kHarmless, "as tokenizer.json says"},
    {"from_slow", kHarmless, ""},
    {"is_local", kHarmless, ""},
    {"legacy", kHarmless, "as tokenizer.json says"},
    {"sp_model_kwargs", kHarmless, "as tokenizer.json says"},
    {"spaces_between_special_tokens", kHarmless, "of slow tokenizers"},
    {"tokenizer_class", kHarmless, ""},
    {"tokenizer_file", kHarmless, ""},
    {"tokenizer_object", kHarmless, ""},
    {"backend", kHarmless, ""},
    {"byte_fallback", kHarmless, "as tokenizer.json says"},
    {"trim_offsets", kHarmless, "offsets are not returned"},
    {"unk_id", kHarmless, "as tokenizer.json says"},
    {"use_fast", kHarmless, ""},
    {"use_default_system_prompt", kHarmless, "of chats"},
    {"vocab_file", kHarmless, ""},
    {"merges_file", kHarmless, ""},
    {"vocab_size", kHarmless, "as tokenizer.json says"},
    // Names of special tokens. Their ids come from config.json and generation_config.json.
    {"audio_token", kHarmless, ""},
    {"bos_token", kHarmless, ""},
    {"boi_token", kHarmless, ""},
    {"cls_token", kHarmless, ""},
    {"eoi_token", kHarmless, ""},
    {"eos_token", kHarmless, ""},
    {"image_token", kHarmless, ""},
    {"mask_token", kHarmless, ""},
    {"pad_token", kHarmless, ""},
    {"sep_token", kHarmless, ""},
    {"unk_token", kHarmless, ""},
    // Chats, batches and provenance.
    {"auto_map", kHarmless, "no code of checkpoints is run"},
    {"chat_template", kHarmless, "texts are continued as they are"},
    {"clean_up_tokenization_spaces", kHarmless, "tidies English text for display; ids are the same"},
    {"errors", kHarmless, "bytes that are not UTF-8 become U+FFFD"},
    {"max_length", kUsed, ""},
    {"max_len", kHarmless, "of batches"},
    {"model_input_names", kHarmless, "of batches"},
    {"model_max_length", kHarmless, "config.json says what the model was made for"},
    {"model_specific_special_tokens", kHarmless, ""},
    {"name_or_path", kHarmless, "provenance"},
    {"pad_to_multiple_of", kHarmless, "of batches"},
    {"pad_token_type_id", kHarmless, "of batches"},
    {"padding_side", kHarmless, "of batches"},
    {"processor_class", kHarmless, "of multimodal models"},
    {"response_schema", kHarmless, "of chats"},
    {"special_tokens_map_file", kHarmless, "provenance"},
    {"stride", kHarmless, "of batches"},
    {"transformers_version", kHarmless, "provenance"},
    {"truncation_side", kHarmless, "of batches"},
    {"truncation_strategy", kHarmless, "of batches"},
    // Settings that change the ids of a text.
    {"add_eos_token", kRefused, "an end token after every prompt"},
    {"do_lower_case", kRefused, "lower-casing beside tokenizer.json's normalizer"},
    {"split_special_tokens", kRefused, "special tokens read as text"},
};

}  // namespace

std::span<const KnownKey> known_keys(CheckpointFile file) {
  switch (file) {
    case CheckpointFile::kConfig: return kConfigKeys;
    case CheckpointFile::kRope: return kRopeKeys;
    case CheckpointFile::kGenerationConfig: return kGenerationKeys;
    case CheckpointFile::kTokenizer: return kTokenizerKeys;
    case CheckpointFile::kTokenizerConfig: return kTokenizerConfigKeys;
  }
  return {};
}

}  // namespace eps::model
