// One table of cases for every implementation of Communicator. A test program for a transport runs it:
//
//   class InprocTest : public ::testing::TestWithParam<test::CommunicatorCase> {};
//   TEST_P(InprocTest, KeepsTheContract) { GetParam().run(transport); }
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "epsmoe/stop.h"

namespace eps::test {

using Communicators = std::vector<std::unique_ptr<comm::Communicator>>;

// Makes one connected communicator for each rank.
using Transport = std::function<Communicators(int num_ranks, std::chrono::milliseconds timeout, StopToken stop)>;

struct CommunicatorCase {
  std::string name;  // a name that GoogleTest takes
  std::function<void(const Transport&)> run;
};
inline std::ostream& operator<<(std::ostream& out, const CommunicatorCase& c) { return out << c.name; }

const std::vector<CommunicatorCase>& communicator_cases();

}  // namespace eps::test
