// Times work that all ranks do at the same time; all ranks get the same result.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "ops/op_set.h"

namespace eps::measure {

class RepeatedTiming {
 public:
  // `keep_going` may be null; comm and ops outlive the object.
  RepeatedTiming(comm::Communicator& comm, const ops::OpSet& ops, bool quick, std::function<bool()> keep_going)
      : comm_(comm), ops_(ops), quick_(quick), keep_going_(std::move(keep_going)) {}

  // The time in µs of one call of `body`, which all ranks call equally often: the median of all ranks' samples on a
  // device, and their lower quartile on a host, where other programs prolong some samples. A sample consists of enough
  // calls to take at least a millisecond. All ranks call this method in the same order and get the same result.
  //
  // Errors  kAborted on all ranks if keep_going returned false on one
  double time_us(const std::function<void()>& body);

  // The same for several bodies that run in turn, so that the machine is in the same state for all of them: a GPU at
  // its power limit runs faster during bodies that use it little, and for a while after them.
  std::vector<double> times_us(std::span<const std::function<void()>> bodies);

  // The median and the largest of all ranks' values.  Errors  as time_us
  double median(const std::vector<double>& mine);
  double largest(double mine);

  comm::Communicator& comm() { return comm_; }
  bool quick() const { return quick_; }

 private:
  int calls_of_sample(double once_us) const;
  double timed_us(const std::function<void()>& body, int calls);
  std::vector<double> gather(const std::vector<double>& mine);

  comm::Communicator& comm_;
  const ops::OpSet& ops_;
  bool quick_;
  std::function<bool()> keep_going_;
};

}  // namespace eps::measure
