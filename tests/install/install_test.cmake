# Installs a finished build into an empty prefix, then builds and runs a program outside this tree against it.
# Usage: cmake -DBUILD_DIR=build/release -P tests/install/install_test.cmake
cmake_minimum_required(VERSION 3.25)
if(NOT EXISTS "${BUILD_DIR}/CMakeCache.txt")
  message(FATAL_ERROR "BUILD_DIR: got '${BUILD_DIR}', wanted the folder of a finished build; try -DBUILD_DIR=build/release")
endif()
get_filename_component(build "${BUILD_DIR}" ABSOLUTE)
get_filename_component(source "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
set(work "${build}/install_test")
file(REMOVE_RECURSE "${work}")

# Runs a command whose failure ends the test; its standard output is left in `output`.
function(step)
  list(JOIN ARGN " " line)
  message(STATUS "${line}")
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE stdout ERROR_VARIABLE stderr RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "failed (${status}): ${line}\n${stdout}${stderr}")
  endif()
  set(output "${stdout}" PARENT_SCOPE)
endfunction()

step(${CMAKE_COMMAND} --install "${build}" --prefix "${work}/prefix")

# What must not get out: headers of src/, and paths of this tree in the package files.
file(GLOB_RECURSE headers RELATIVE "${work}/prefix/include" "${work}/prefix/include/*")
foreach(header ${headers})
  if(NOT header MATCHES "^epsmoe/")
    message(FATAL_ERROR "a private header was installed: ${header}")
  endif()
endforeach()
file(GLOB_RECURSE package_files "${work}/prefix/lib/*.cmake")
foreach(package_file ${package_files})
  file(READ "${package_file}" text)
  string(FIND "${text}" "${source}" position)
  if(NOT position EQUAL -1)
    message(FATAL_ERROR "${package_file} names the source tree")
  endif()
endforeach()

step(${CMAKE_COMMAND} -S "${CMAKE_CURRENT_LIST_DIR}/consumer" -B "${work}/consumer" -G Ninja -DCMAKE_BUILD_TYPE=Release
  "-DCMAKE_PREFIX_PATH=${work}/prefix")
step(${CMAKE_COMMAND} --build "${work}/consumer")
step("${work}/consumer/consumer" "${source}/models/austen-moe")
message(STATUS "the consumer says: ${output}")
step("${work}/prefix/bin/epsmoe" --version)
message(STATUS "the installed program says: ${output}")
