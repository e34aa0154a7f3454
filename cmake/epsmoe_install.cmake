# The library `epsmoe` for other programs, and the install rules: bin/epsmoe, lib/libepsmoe.a, include/epsmoe/ and a
# CMake package, so that find_package(epsmoe) gives epsmoe::epsmoe.
include(CMakePackageConfigHelpers)

# One archive from the objects of every module but the command line: a program links one library, and how the modules
# are cut stays an inner matter.
get_property(modules DIRECTORY ${PROJECT_SOURCE_DIR}/src PROPERTY BUILDSYSTEM_TARGETS)
list(FILTER modules INCLUDE REGEX "^eps_")
list(REMOVE_ITEM modules eps_cli)
list(TRANSFORM modules REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>" OUTPUT_VARIABLE objects)
add_library(epsmoe STATIC ${objects})
add_library(epsmoe::epsmoe ALIAS epsmoe)
set_target_properties(epsmoe PROPERTIES LINKER_LANGUAGE CXX)
target_compile_features(epsmoe INTERFACE cxx_std_20)
target_include_directories(epsmoe INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
# PRIVATE: users link these, but see none of their headers. epsmoe-config.cmake.in finds the same list.
target_link_libraries(epsmoe PRIVATE
  $<BUILD_INTERFACE:epsmoe_flags> fmt::fmt Threads::Threads DNNL::dnnl OpenMP::OpenMP_CXX PkgConfig::PCRE2
  PkgConfig::UTF8PROC)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/epsmoe)
install(TARGETS epsmoe EXPORT epsmoe ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET epsmoe_cli)
  install(TARGETS epsmoe_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/epsmoe DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(EXPORT epsmoe NAMESPACE epsmoe:: FILE epsmoe-targets.cmake DESTINATION ${package_dir})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/epsmoe-config.cmake.in
  ${PROJECT_BINARY_DIR}/epsmoe-config.cmake INSTALL_DESTINATION ${package_dir})
# Before 1.0 every minor version may change the API.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/epsmoe-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/epsmoe-config.cmake ${PROJECT_BINARY_DIR}/epsmoe-config-version.cmake
  DESTINATION ${package_dir})
