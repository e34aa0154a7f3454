// Nothing: the target of this file holds the precompiled headers of the tests (tests/CMakeLists.txt).
