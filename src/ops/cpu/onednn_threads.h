// oneDNN runs on OpenMP; this sets how many OpenMP threads the calling thread's products use.
#pragma once

// Declared here rather than by <omp.h>, which comes with the compiler and is missing from some; the functions come with
// the OpenMP library that oneDNN is linked to.
extern "C" {
int omp_get_max_threads();
void omp_set_num_threads(int num_threads);
}

namespace eps {

// While it lives, OpenMP regions started by this thread have `count` threads. The setting is the thread's own.
class OmpThreads {
 public:
  explicit OmpThreads(int count) : before_(omp_get_max_threads()) { omp_set_num_threads(count); }
  ~OmpThreads() { omp_set_num_threads(before_); }
  OmpThreads(const OmpThreads&) = delete;
  OmpThreads& operator=(const OmpThreads&) = delete;

 private:
  int before_;
};

// Our pool splits the work already; a second team of threads below it would fight over the same cores.
class OneOmpThread : public OmpThreads {
 public:
  OneOmpThread() : OmpThreads(1) {}
};

}  // namespace eps
