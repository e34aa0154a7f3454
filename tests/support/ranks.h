// Runs a body on every rank of an in-process world, one thread each; rethrows the first error that is not an echo.
#pragma once

#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "comm/emulated_link.h"
#include "comm/inproc/inproc.h"

namespace eps::test {

// `link`: what to slow the transport down to; null: nothing.
inline void on_ranks(int num_ranks, const std::function<void(comm::Communicator&)>& body,
                     const comm::LinkSpec* link = nullptr) {
  auto comms = comm::make_inproc_communicators(num_ranks, std::chrono::milliseconds(30000));
  if (link != nullptr) {
    for (auto& comm : comms) comm = comm::make_emulated_link(std::move(comm), *link);
  }
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (auto& comm : comms) {
    threads.emplace_back([&] {
      try {
        body(*comm);
      } catch (const std::exception& e) {
        const auto* error = dynamic_cast<const Error*>(&e);
        const bool echo = error != nullptr && error->kind() == ErrorKind::kAborted;
        const std::lock_guard lock(mutex);
        if (!first || !echo) first = std::current_exception();
        comm->abort(e.what());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace eps::test
