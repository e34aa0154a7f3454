// Sets how many OpenMP threads oneDNN uses for the products of the calling thread.
#pragma once

// Declared here because <omp.h> belongs to the compiler, and some installations lack it. The functions are in the
// OpenMP library that oneDNN is linked to.
extern "C" {
int omp_get_max_threads();
void omp_set_num_threads(int num_threads);
}

namespace eps::ops {

// During its lifetime, OpenMP regions that this thread starts have `count` threads. Other threads are not affected.
class OmpThreads {
 public:
  explicit OmpThreads(int count) : before_(omp_get_max_threads()) { omp_set_num_threads(count); }
  ~OmpThreads() { omp_set_num_threads(before_); }
  OmpThreads(const OmpThreads&) = delete;
  OmpThreads& operator=(const OmpThreads&) = delete;

 private:
  int before_;
};

// Our pool already divides the work between threads; a second team of threads would compete for the same cores.
class OneOmpThread : public OmpThreads {
 public:
  OneOmpThread() : OmpThreads(1) {}
};

}  // namespace eps::ops
