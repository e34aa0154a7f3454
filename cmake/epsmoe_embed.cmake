# eps_embed_profiles(TARGET FILE...): compiles JSON profiles into TARGET, each under its file's name. The generated source
# defines bundled_profiles() of src/report/profile_store.h. Editing a profile configures anew.
function(eps_embed_profiles target)
  set(EPS_PROFILES "")
  foreach(file ${ARGN})
    get_filename_component(name ${file} NAME_WE)
    file(READ ${file} text)
    string(APPEND EPS_PROFILES "    {\"${name}\", R\"profile(${text})profile\"},\n")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  endforeach()
  set(source ${CMAKE_CURRENT_BINARY_DIR}/bundled_profiles.cpp)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/bundled_profiles.cpp.in ${source} @ONLY)
  target_sources(${target} PRIVATE ${source})
endfunction()
