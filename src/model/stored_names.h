// The names a checkpoint gives its weights, which may have another prefix than those of the model's family.
#pragma once

#include <string>
#include <string_view>

#include "io/checkpoint.h"
#include "model/family.h"

namespace eps {

// Programs that save the inner model leave "model." out, and those that wrap it put something in front
// ("language_model.model."). One prefix holds for a whole checkpoint: that of the first layer.
class StoredNames {
 public:
  StoredNames(const ModelSpec& spec, const Family& family, const Checkpoint& checkpoint);

  // What the checkpoint calls the weight that the family calls `name`, whether or not it is there.
  std::string stored(std::string_view name) const;
  // The other way round; names of no weight of the model stay as they are or become names that no family gives.
  std::string canonical(std::string_view stored) const;

  const std::string& prefix() const { return prefix_; }                // "model." in most checkpoints
  const std::string& family_prefix() const { return family_prefix_; }  // "model."

 private:
  std::string family_prefix_;
  std::string prefix_;
  std::string lm_head_, stored_lm_head_;
  std::string embedding_;
  bool embedding_is_lm_head_ = false;  // of two tied weights only the output matrix is stored
};

}  // namespace eps
