// Maps the weight names of a model family to those in a checkpoint, which may have a different prefix.
#pragma once

#include <string>
#include <string_view>

#include "arch/family.h"
#include "io/checkpoint.h"

namespace eps::model {

// Programs that save only the inner model omit "model.", and those that wrap it add a prefix ("language_model.model.").
// The prefix is taken from the first layer and applies to the whole checkpoint.
class StoredNames {
 public:
  StoredNames(const arch::ModelSpec& spec, const arch::Family& family, const io::Checkpoint& checkpoint);

  // The name in the checkpoint of the weight that the family calls `name`, even if the checkpoint does not contain it.
  std::string stored(std::string_view name) const;
  // The inverse of stored(). Names of other tensors either do not change or become names that are not used by the
  // family.
  std::string canonical(std::string_view stored) const;

  const std::string& prefix() const { return prefix_; }                // "model." in most checkpoints
  const std::string& family_prefix() const { return family_prefix_; }  // "model."

 private:
  std::string family_prefix_;
  std::string prefix_;
  std::string lm_head_, stored_lm_head_;
  std::string embedding_;
  bool embedding_is_lm_head_ = false;  // tied, and only the output matrix is stored
};

}  // namespace eps::model
