# eps_module(NAME [COLD] DEPS ...): a static library eps_<NAME> from every .cpp below src/<NAME>/. COLD: nothing in it
#   takes time that a user would notice, so it is compiled quickly rather than into fast code.
# eps_test(NAME LABEL ... DEPS ...): a GoogleTest program <NAME> from tests/<path>/<NAME>.cpp, run by ctest with a timeout.

# Parsing these headers takes longer than compiling most of our files. They are parsed once for all modules and once for
# all tests; every file still includes what it needs, and the lint lane checks that without precompiled headers.
set(EPS_PRECOMPILED <algorithm> <array> <atomic> <chrono> <cmath> <filesystem> <fstream> <functional> <map> <memory>
  <mutex> <numeric> <optional> <random> <set> <span> <sstream> <string> <thread> <unordered_map> <vector>
  <fmt/format.h>)

# For the sanitizers, which are built anew in every run of continuous integration, the files of a module are compiled a
# few at a time: their headers take longer than they do. Everywhere else each file is a unit of its own, so that changing
# one recompiles no other. Left out are files with kernels for an instruction set, which define macros, and those whose
# members have types of an anonymous namespace, which gcc refuses in an included file.
set(EPS_NOT_IN_UNITY "/arch/[a-z0-9_]+/|/ops/cpu/.*(avx|amx|panel|onednn|vector|convert)|/io/tokenizer/regex\\.cpp$")

function(eps_module name)
  cmake_parse_arguments(ARG "COLD" "" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$|/ops/cuda/")  # CUDA: cmake/epsmoe_cuda.cmake
  add_library(eps_${name} STATIC ${sources})
  target_link_libraries(eps_${name} PUBLIC epsmoe_flags ${ARG_DEPS})
  if(EPSMOE_SANITIZE)
    set_target_properties(eps_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
    set(alone ${sources})
    list(FILTER alone INCLUDE REGEX "${EPS_NOT_IN_UNITY}")
    set_source_files_properties(${alone} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
  if(ARG_COLD)
    target_compile_options(eps_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  endif()
  if(name STREQUAL "base")
    target_precompile_headers(eps_base PRIVATE ${EPS_PRECOMPILED})
  else()
    target_precompile_headers(eps_${name} REUSE_FROM eps_base)
  endif()
endfunction()

# Test bodies run once, and they are not what the sanitizers are for: compile them quickly. Checking them for undefined
# behaviour as well would double the size of their code; the modules and the program are checked.
function(eps_compile_as_test target)
  if(EPSMOE_SANITIZE)
    target_compile_options(${target} PRIVATE -O0)
    set_target_properties(${target} PROPERTIES EPS_TEST_BODIES ON)  # read in epsmoe_options.cmake
  else()
    target_compile_options(${target} PRIVATE -O1)
  endif()
endfunction()

function(eps_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "DEPS;SOURCES" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gtest GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE EPSMOE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  eps_compile_as_test(${name})
  target_precompile_headers(${name} REUSE_FROM test_headers)
  if(EPSMOE_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 4")
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT}
    # Neither measured on first use nor planned with what the user keeps: tests know their profiles.
    ENVIRONMENT "EPSMOE_NO_TUNE=1;XDG_CACHE_HOME=${PROJECT_BINARY_DIR}/test_cache")
endfunction()
