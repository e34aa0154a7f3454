#include <fmt/format.h>

#include <cmath>

#include "arch/config.h"

namespace eps::arch {
namespace {

double yarn_mscale(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

// There are two formats: transformers 5 writes a `rope_parameters` object, earlier versions `rope_theta` and
// `rope_scaling`. If both exist, a `rope_scaling` that is not empty replaces all of `rope_parameters`, including its
// theta. Source  transformers 5.24, modeling_rope_utils.py, convert_rope_params_to_dict
std::optional<io::JsonObject> rope_object(const io::JsonObject& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    auto object = config.optional_child(key);
    if (object && !object->value().empty()) return object;
  }
  return std::nullopt;
}

double read_original_positions(const io::JsonObject& config, const io::JsonObject& parameters) {
  // A value at the top level takes precedence over that of the object.
  constexpr std::string_view kKey = "original_max_position_embeddings";
  const io::JsonObject& object = config.has(kKey) ? config : parameters;
  const double positions = object.get_or<double>(kKey, config.get<double>("max_position_embeddings"));
  if (positions < 1.0) object.reject(kKey, "1 or more");
  return positions;
}

double read_positive(const io::JsonObject& parameters, std::string_view key, double fallback) {
  const double value = parameters.get_or<double>(key, fallback);
  if (value <= 0.0) parameters.reject(key, "a number above 0");
  return value;
}

YarnScaling read_yarn(const io::JsonObject& config, const io::JsonObject& parameters, double& softmax_factor) {
  YarnScaling yarn;
  yarn.original_max_positions = read_original_positions(config, parameters);
  yarn.factor =
      read_positive(parameters, "factor", config.get<double>("max_position_embeddings") / yarn.original_max_positions);
  const auto beta = [&parameters](std::string_view key, double fallback) {
    const double value = parameters.get_or<double>(key, fallback);
    if (value < 0.0) parameters.reject(key, "a number above 0");
    return value == 0.0 ? fallback : value;  // transformers treats 0 as missing
  };
  yarn.beta_fast = beta("beta_fast", 32.0);
  yarn.beta_slow = beta("beta_slow", 1.0);
  yarn.truncate = parameters.get_or<bool>("truncate", true);
  const double mscale = parameters.get_or<double>("mscale", 0.0);
  const double mscale_all_dim = parameters.get_or<double>("mscale_all_dim", 0.0);
  yarn.attention_factor = mscale != 0.0 && mscale_all_dim != 0.0
                              ? yarn_mscale(yarn.factor, mscale) / yarn_mscale(yarn.factor, mscale_all_dim)
                              : yarn_mscale(yarn.factor, 1.0);
  yarn.attention_factor = parameters.get_or<double>("attention_factor", yarn.attention_factor);
  if (mscale_all_dim != 0.0) {
    const double m = yarn_mscale(yarn.factor, mscale_all_dim);
    softmax_factor = m * m;
  }
  return yarn;
}

Llama3Scaling read_llama3(const io::JsonObject& config, const io::JsonObject& parameters) {
  Llama3Scaling scaling;
  scaling.original_max_positions = read_original_positions(config, parameters);
  scaling.factor = read_positive(parameters, "factor", scaling.factor);
  scaling.low_freq_factor = read_positive(parameters, "low_freq_factor", scaling.low_freq_factor);
  scaling.high_freq_factor = read_positive(parameters, "high_freq_factor", scaling.high_freq_factor);
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    parameters.reject("high_freq_factor", fmt::format("more than low_freq_factor = {:g}", scaling.low_freq_factor));
  }
  return scaling;
}

}  // namespace

RopeConfig read_rope(const io::JsonObject& config, int head_dim, const RopeDefaults& defaults) {
  RopeConfig rope;
  rope.spec.layout = defaults.layout;
  const auto parameters = rope_object(config);
  const auto value_of = [&](std::string_view key, double fallback) {
    const double outer = config.get_or<double>(key, fallback);
    return parameters ? parameters->get_or<double>(key, outer) : outer;
  };
  const auto reject = [&](std::string_view key, const std::string& wanted) {
    (parameters && parameters->has(key) ? *parameters : config).reject(key, wanted);
  };
  rope.spec.theta = value_of("rope_theta", defaults.theta);
  if (rope.spec.theta <= 1.0) reject("rope_theta", "a number above 1");
  const double part = value_of("partial_rotary_factor", defaults.partial_rotary_factor);
  rope.spec.dim = static_cast<int>(head_dim * part);
  if (part != 1.0 && !defaults.may_be_partial) reject("partial_rotary_factor", "1, for this family");
  if (part <= 0.0 || part > 1.0 || rope.spec.dim < 2 || rope.spec.dim % 2 != 0) {
    reject("partial_rotary_factor", fmt::format("a part of {} elements that is an even number", head_dim));
  }
  if (!parameters) return rope;
  const std::string_view type_key = parameters->has("rope_type") ? "rope_type" : "type";
  const std::string type = parameters->get_or<std::string>(type_key, "default");
  if (type == "linear") {
    rope.spec.scaling = LinearScaling{read_positive(*parameters, "factor", 1.0)};
  } else if (type == "dynamic") {
    // Changes the frequencies only beyond max_position_embeddings, which no sequence of this program exceeds.
    read_positive(*parameters, "factor", 1.0);
  } else if (type == "yarn") {
    rope.spec.scaling = read_yarn(config, *parameters, rope.softmax_factor);
  } else if (type == "llama3") {
    rope.spec.scaling = read_llama3(config, *parameters);
  } else if (type != "default") {
    parameters->reject(type_key, "default, linear, dynamic, yarn or llama3");
  }
  return rope;
}

}  // namespace eps::arch
