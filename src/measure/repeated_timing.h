// Times what all ranks do at the same time, and agrees on the result.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "ops/op_set.h"

namespace eps {

class RepeatedTiming {
 public:
  // `keep_going` may be null; comm and ops outlive the object.
  RepeatedTiming(Communicator& comm, const OpSet& ops, bool quick, std::function<bool()> keep_going)
      : comm_(comm), ops_(ops), quick_(quick), keep_going_(std::move(keep_going)) {}

  // µs of one call of `body`, which every rank calls equally often, while nothing else runs on the machine: the median
  // of all ranks' samples on a device, their lower quartile on a host, where other programs make some samples longer. A
  // sample is as many calls as take a millisecond or more. Every rank calls this in the same order and gets the same
  // answer.
  //
  // Errors  kAborted on all ranks when keep_going said no on one
  double time_us(const std::function<void()>& body);

  // The same for several bodies that take turns, so that all find the machine in the same state: a GPU at its power
  // limit runs faster for those that make little use of it, and for a while after them.
  std::vector<double> times_us(std::span<const std::function<void()>> bodies);

  // The median and the largest of all ranks' values.  Errors  as time_us
  double median(const std::vector<double>& mine);
  double largest(double mine);

  Communicator& comm() { return comm_; }
  bool quick() const { return quick_; }

 private:
  int calls_of_sample(double once_us) const;
  double timed_us(const std::function<void()>& body, int calls);
  std::vector<double> gather(const std::vector<double>& mine);

  Communicator& comm_;
  const OpSet& ops_;
  bool quick_;
  std::function<bool()> keep_going_;
};

}  // namespace eps
