# Install and export rules: bin/epsmoe, lib/libepsmoe.a, include/epsmoe/ and a package that find_package(epsmoe) finds.
include(CMakePackageConfigHelpers)

# One archive from the objects of every module below src/ (but the command line), so that a program links one library,
# and the modules stay an inner matter.
set(epsmoe_objects)
get_property(targets DIRECTORY ${PROJECT_SOURCE_DIR}/src PROPERTY BUILDSYSTEM_TARGETS)
foreach(target ${targets})
  if(target MATCHES "^eps_" AND NOT target STREQUAL "eps_cli")
    list(APPEND epsmoe_objects $<TARGET_OBJECTS:${target}>)
  endif()
endforeach()
add_library(epsmoe STATIC EXCLUDE_FROM_ALL ${epsmoe_objects})
