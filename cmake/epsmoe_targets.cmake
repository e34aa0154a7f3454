# eps_module(NAME DEPS ...): a static library eps_<NAME> from every .cpp below src/<NAME>/.
# eps_test(NAME LABEL ... DEPS ...): a GoogleTest program <NAME> from tests/<path>/<NAME>.cpp, run by ctest with a timeout.
function(eps_module name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$|/ops/cuda/")  # CUDA: cmake/epsmoe_cuda.cmake
  add_library(eps_${name} STATIC ${sources})
  target_link_libraries(eps_${name} PUBLIC epsmoe_flags ${ARG_DEPS})
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
  if(EPSMOE_SANITIZE)  # test bodies are not what the sanitizers are for: compile them quickly, and give them time
    target_compile_options(${name} PRIVATE -O0)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 4")
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT}
    # Neither measured on first use nor planned with what the user keeps: tests know their profiles.
    ENVIRONMENT "EPSMOE_NO_TUNE=1;XDG_CACHE_HOME=${PROJECT_BINARY_DIR}/test_cache")
endfunction()
