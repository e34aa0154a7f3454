# The CUDA backend: libepsmoe_cuda.so from src/ops/cuda/, opened at run time by programs that are asked for --device cuda.
# EPSMOE_CUDA = AUTO builds it where a CUDA 13 toolkit with cuDNN and the cuDNN frontend headers are found.
set(EPSMOE_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
set(EPSMOE_CUDNN_FRONTEND "${PROJECT_SOURCE_DIR}/.cache/cudnn-frontend/include" CACHE PATH
  "Folder with cudnn_frontend.h (tools/setup.sh cuda fetches it)")

# Program and library must agree on every header that crosses their border.
file(GLOB border CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/ops/*.h ${PROJECT_SOURCE_DIR}/src/tensor/*.h
  ${PROJECT_SOURCE_DIR}/src/moe/*.h ${PROJECT_SOURCE_DIR}/src/plan/*.h ${PROJECT_SOURCE_DIR}/src/device/*.h
  ${PROJECT_SOURCE_DIR}/src/comm/*.h ${PROJECT_SOURCE_DIR}/src/base/*.h ${PROJECT_SOURCE_DIR}/include/epsmoe/error.h)
set(text "")
foreach(file ${border})
  file(SHA256 ${file} hash)
  string(APPEND text ${hash})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
endforeach()
string(SHA256 hash "${text}")
string(SUBSTRING ${hash} 0 16 hash)
set(build_definition EPSMOE_CUDA_BUILD="${PROJECT_VERSION}-${hash}")
target_compile_definitions(eps_engine PUBLIC ${build_definition})

set(EPSMOE_BUILD_CUDA OFF)
set(why "")
if(EPSMOE_CUDA STREQUAL "OFF")
  set(why "switched off")
elseif(EPSMOE_SANITIZE)
  set(why "sanitizer build")
else()
  find_program(EPSMOE_NVCC nvcc HINTS /usr/local/cuda/bin)
  find_path(EPSMOE_CUDNN_INCLUDE cudnn.h HINTS /usr/local/cuda/include)
  find_library(EPSMOE_CUDNN_LIBRARY cudnn HINTS /usr/local/cuda/lib64)
  set(version 0)
  if(EPSMOE_NVCC)
    execute_process(COMMAND ${EPSMOE_NVCC} --version OUTPUT_VARIABLE said ERROR_QUIET)
    if(said MATCHES "release ([0-9.]+)")
      set(version ${CMAKE_MATCH_1})
    endif()
  endif()
  if(NOT EPSMOE_NVCC)
    set(why "no nvcc")
  elseif(version VERSION_LESS 12.8)
    set(why "nvcc ${version} is too old, 12.8 is the oldest")
  elseif(NOT EPSMOE_CUDNN_INCLUDE OR NOT EPSMOE_CUDNN_LIBRARY)
    set(why "no cuDNN")
  elseif(NOT EXISTS ${EPSMOE_CUDNN_FRONTEND}/cudnn_frontend.h)
    set(why "no cuDNN frontend headers in ${EPSMOE_CUDNN_FRONTEND}: tools/setup.sh cuda")
  else()
    set(EPSMOE_BUILD_CUDA ON)
  endif()
endif()
if(EPSMOE_CUDA STREQUAL "ON" AND NOT EPSMOE_BUILD_CUDA)
  message(FATAL_ERROR "EPSMOE_CUDA=ON, but: ${why}")
endif()
add_custom_target(cuda_backend)  # the library where it can be built, else nothing
if(NOT EPSMOE_BUILD_CUDA)
  message(STATUS "CUDA backend: not built (${why})")
  return()
endif()

set(CMAKE_CUDA_COMPILER ${EPSMOE_NVCC})
set(CMAKE_CUDA_ARCHITECTURES 90a-real)  # wgmma and setmaxnreg are Hopper's own
enable_language(CUDA)
set(CMAKE_CUDA_COMPILER_LAUNCHER ${PROJECT_SOURCE_DIR}/tools/nvcc_resources.sh)
find_package(CUDAToolkit REQUIRED)
# CMake 3.25 does not know C++20 for nvcc and drops it without a word.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_EXTENSIONS OFF)
message(STATUS "CUDA backend: CUDA ${CMAKE_CUDA_COMPILER_VERSION}, cuDNN in ${EPSMOE_CUDNN_LIBRARY}")

file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/ops/cuda/*.cpp
  ${PROJECT_SOURCE_DIR}/src/ops/cuda/kernels/*/*.cpp ${PROJECT_SOURCE_DIR}/src/ops/cuda/kernels/*/*.cu)
add_library(epsmoe_cuda MODULE ${sources} ${PROJECT_SOURCE_DIR}/src/ops/op_set.cpp)
# Host files only, so that a changed header does not compile every kernel again.
target_compile_definitions(epsmoe_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${build_definition}>)
# It includes the cuDNN frontend headers: most of the time goes into optimising code that runs once per shape.
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/ops/cuda/sdpa_plan.cpp PROPERTIES COMPILE_OPTIONS -O1
  COMPILE_DEFINITIONS CUDNN_FRONTEND_SKIP_JSON_LIB)  # its graphs as JSON, which nothing here reads
set_target_properties(epsmoe_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin
  CUDA_VISIBILITY_PRESET hidden)
target_include_directories(epsmoe_cuda SYSTEM PRIVATE ${EPSMOE_CUDNN_INCLUDE} ${EPSMOE_CUDNN_FRONTEND})
target_compile_options(epsmoe_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo --expt-relaxed-constexpr -Werror=all-warnings
  -Xptxas=-v -Xcompiler=-Wall,-Wextra>)
target_link_libraries(epsmoe_cuda PRIVATE eps_plan CUDA::cudart_static CUDA::cublas CUDA::nvrtc ${EPSMOE_CUDNN_LIBRARY})
# A symbol that nothing defines is an error here and not where the library is opened.
target_link_options(epsmoe_cuda PRIVATE -Wl,-z,defs)
add_dependencies(cuda_backend epsmoe_cuda)
# Where the loader looks, whatever the machine calls its folder of libraries; with the way to cuBLAS and cuDNN.
set_target_properties(epsmoe_cuda PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS epsmoe_cuda LIBRARY DESTINATION lib/epsmoe)
