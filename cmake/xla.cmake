# The headers of XLA's foreign function interface, for the handlers that compiled JAX calls. They
# come with every jaxlib; a module speaks the version of those it was built with and all later ones,
# so wheels are built with old ones (pyproject.toml). Where there are none, or FANANO_JAX is OFF,
# the build links the stand-ins of cpp/no_xla.
set(FANANO_JAX AUTO CACHE STRING "Handlers for JAX: AUTO (if headers are found), OFF, REQUIRE")
set(FANANO_XLA_INCLUDE "" CACHE PATH "Where xla/ffi/api/ffi.h is; empty: in the jaxlib of Python")

set(FANANO_XLA_SOURCES cpp/no_xla/xla.cpp)
if(NOT FANANO_JAX STREQUAL "OFF" AND FANANO_PYTHON)
  set(include ${FANANO_XLA_INCLUDE})
  if(NOT include)
    find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
    execute_process(COMMAND "${Python_EXECUTABLE}" -c
"from importlib.util import find_spec
jaxlib = find_spec('jaxlib')
print(jaxlib.submodule_search_locations[0] + '/include' if jaxlib else '', end='')"
                    OUTPUT_VARIABLE include)
  endif()
  if(include AND EXISTS "${include}/xla/ffi/api/ffi.h")
    set(FANANO_XLA_SOURCES cpp/xla/call.cpp cpp/xla/handlers.cpp cpp/xla/cuda_handlers.cpp)
    set(FANANO_XLA_HEADERS "${include}")
    file(STRINGS "${include}/xla/ffi/api/c_api.h" version REGEX "define XLA_FFI_API_M(AJ|IN)OR ")
    string(REGEX REPLACE "[^0-9;]" "" version "${version}")
    list(JOIN version "." version)
    message(STATUS "JAX: handlers for XLA's foreign functions ${version}, from ${include}")
  elseif(FANANO_JAX STREQUAL "REQUIRE")
    message(FATAL_ERROR "FANANO_JAX=REQUIRE: no xla/ffi/api/ffi.h in \"${include}\"; install "
                        "jaxlib, or pass -DFANANO_XLA_INCLUDE=<the include folder of a jaxlib>")
  else()
    message(STATUS "JAX: no headers of XLA's foreign functions, so no handlers (no jaxlib here)")
  endif()
endif()
