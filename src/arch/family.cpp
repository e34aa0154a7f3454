#include "arch/family.h"

#include <array>

#include "arch/arctic/arctic.h"
#include "arch/dbrx/dbrx.h"
#include "arch/deepseek_v2/deepseek_v2.h"
#include "arch/deepseek_v3/deepseek_v3.h"
#include "arch/glm4_moe/glm4_moe.h"
#include "arch/gpt_oss/gpt_oss.h"
#include "arch/granite_moe/granite_moe.h"
#include "arch/mixtral/mixtral.h"
#include "arch/olmoe/olmoe.h"
#include "arch/qwen2_moe/qwen2_moe.h"
#include "arch/qwen3_moe/qwen3_moe.h"

namespace eps::arch {

std::span<const Family> families() {
  static const std::array all = {
      deepseek_v2_family(), deepseek_v3_family(), kimi_k2_family(), qwen2_moe_family(),
      qwen3_moe_family(),   mixtral_family(),     olmoe_family(),   glm4_moe_family(),
      gpt_oss_family(),     dbrx_family(),        arctic_family(),  granite_moe_family(),
  };
  return all;
}

const Family& find_family(const io::JsonObject& config) {
  const std::string type = config.get<std::string>("model_type");
  std::string known;
  for (const Family& family : families()) {
    if (family.model_type == type) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  config.reject("model_type", "one of the supported architectures: " + known);
}

}  // namespace eps::arch
