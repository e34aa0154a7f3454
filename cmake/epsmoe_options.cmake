# Build options and the compiler flags every target shares.
option(EPSMOE_BUILD_TESTS "Build the tests" ON)
option(EPSMOE_BUILD_FUZZERS "Build the libFuzzer targets (needs clang)" OFF)
set(EPSMOE_SANITIZE "" CACHE STRING "Sanitizers for every target, e.g. address,undefined or thread")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(epsmoe_flags INTERFACE)
# fp-contract=off: the compiler must not fuse a*b+c on its own, or the same sum would round differently from one
# translation unit to the next. Kernels that want FMA say so with intrinsics.
target_compile_options(epsmoe_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
  -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Werror -ffp-contract=off>)
# clang sees the 0 of defaulted comparisons as a null pointer.
target_compile_options(epsmoe_flags INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:
  -Wsuggest-override -Wzero-as-null-pointer-constant>)
target_include_directories(epsmoe_flags INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC bugs 105329 and 105651: false alarms on strings that are assigned and moved.
  target_compile_options(epsmoe_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict -Wno-array-bounds -Wno-stringop-overread
    -Wno-stringop-overflow>)
endif()
if(EPSMOE_SANITIZE)
  target_compile_options(epsmoe_flags INTERFACE -fsanitize=${EPSMOE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(epsmoe_flags INTERFACE -fsanitize=${EPSMOE_SANITIZE})
  # Sanitized programs are large, and there are as many as test files. gold links them in a fraction of ld's time.
  find_program(EPSMOE_GOLD ld.gold)
  if(EPSMOE_GOLD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_link_options(epsmoe_flags INTERFACE -fuse-ld=gold)
  endif()
  if(EPSMOE_SANITIZE MATCHES "undefined")
    target_compile_options(epsmoe_flags INTERFACE -fno-sanitize=null,vptr)  # slow to compile; ASan catches null anyway
    target_compile_options(epsmoe_flags INTERFACE $<$<BOOL:$<TARGET_PROPERTY:EPS_TEST_BODIES>>:-fno-sanitize=undefined>)
  endif()
endif()

find_program(EPSMOE_CCACHE ccache)
if(EPSMOE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${EPSMOE_CCACHE})
endif()
