# CUDA is a switch. Where an nvcc is found that works, the module has the CUDA kernels, and the
# tests execute them (tests/cuda) with nvcc alone: no GPU, no driver. Where there is none, or
# FANANO_CUDA is OFF, the build links the stand-ins of cpp/no_cuda.
set(FANANO_CUDA AUTO CACHE STRING
    "CUDA kernels: AUTO (if an nvcc works), OFF, REQUIRE, PIP (by the nvcc of Python's packages)")

# THE CUDA VARIANT TABLE: the dtypes that the kernels are built for, each with its C++ type, and the
# architecture; of flash attention and decode by sm_80's instructions the dtypes and the columns,
# for each of which cuda/flash_tiles.cuh and cuda/decode_tiles.cuh have the tiles. Adding a row here
# builds and tests it. For daily work, FANANO_CUDA_DIMS=64 builds those of 64 columns alone; what
# the environment has of that name goes before what the build had.
set(FANANO_CUDA_ARCHITECTURE 80)
set(FANANO_CUDA_DTYPES float64 float32 bfloat16 float16)
set(cuda_type_float64 double)
set(cuda_type_float32 float)
set(cuda_type_bfloat16 bfloat16)
set(cuda_type_float16 float16)
set(FANANO_CUDA_FLASH_DTYPES bfloat16 float16)
set(FANANO_CUDA_BACKWARD_DIMS 64 128)  # of its gradients; General of 256 columns would spill
set(FANANO_CUDA_DIMS 32 64 96 128 256 CACHE STRING "Columns of flash attention on CUDA")
if(DEFINED ENV{FANANO_CUDA_DIMS} AND NOT "$ENV{FANANO_CUDA_DIMS}" STREQUAL "${FANANO_CUDA_DIMS}")
  message(STATUS "CUDA: FANANO_CUDA_DIMS is $ENV{FANANO_CUDA_DIMS}, as the environment says; it \
was ${FANANO_CUDA_DIMS}")
  set_property(CACHE FANANO_CUDA_DIMS PROPERTY VALUE "$ENV{FANANO_CUDA_DIMS}")
endif()

# No contraction, as on the CPU: a product and a sum are fused where the source says so.
set(FANANO_NVCC_FLAGS -std=c++20 -O3 -fmad=false
    -Xcompiler -Wall,-Wextra,-fPIC,-fvisibility=hidden -ccbin ${CMAKE_CXX_COMPILER})
# The tests': PTX alone, readable as it stands, with the lines it came from.
set(virtual compute_${FANANO_CUDA_ARCHITECTURE})
set(ptx arch=${virtual})
set(FANANO_NVCC_PTX
    -lineinfo -cudart none --no-compress -gencode ${ptx},code=${virtual})
# The module's: machine code for Ampere and its kin and for Hopper. What is newer gets PTX, which
# the driver compiles. All are made of the same PTX, for no kernel has instructions of Hopper's own
# yet. FANANO_CUDA_HOPPER=OFF, in the environment too, leaves Hopper to the driver, and out of the
# static report: nearly half the time of nvcc. Without lines: with them the module was 28 MB instead
# of 16. (-Xptxas=-v, for ccache takes a -v that stands alone for its own.)
option(FANANO_CUDA_HOPPER "Machine code for sm_90a" ON)
if(DEFINED ENV{FANANO_CUDA_HOPPER})
  set(FANANO_CUDA_HOPPER $ENV{FANANO_CUDA_HOPPER})
endif()
set(hopper)
set(FANANO_CUDA_MACHINE_CODE sm_${FANANO_CUDA_ARCHITECTURE})
if(FANANO_CUDA_HOPPER)
  list(APPEND FANANO_CUDA_MACHINE_CODE sm_90a)
  set(hopper -gencode ${ptx},code=sm_90a)
endif()
set(FANANO_NVCC_MODULE --compress-mode=size -Xptxas=-v
    -gencode ${ptx},code=sm_${FANANO_CUDA_ARCHITECTURE} ${hopper}
    -gencode ${ptx},code=${virtual})
set(FANANO_CUDA_INCLUDES
    ${PROJECT_SOURCE_DIR}/cuda ${PROJECT_SOURCE_DIR}/cpp ${PROJECT_BINARY_DIR}/generated)

# ---- nvcc ----------------------------------------------------------------------------------------
# Sets FANANO_NVCC, FANANO_CUDA_HEADERS and FANANO_CUDART, the static runtime library beside it; or
# FANANO_WHY_NO_NVCC.
function(fanano_find_nvcc)
  set(places)
  if(NOT FANANO_CUDA STREQUAL "PIP")
    set(places ENV PATH ENV CUDA_HOME ENV CUDA_PATH)
  endif()
  find_package(Python 3.10 COMPONENTS Interpreter)
  if(Python_FOUND)
    execute_process(COMMAND "${Python_EXECUTABLE}" -c
"from importlib.util import find_spec
nvidia = find_spec('nvidia')
print(*(p + '/cu13' for p in nvidia.submodule_search_locations) if nvidia else (), sep=';', end='')"
                    OUTPUT_VARIABLE packages)
  endif()
  # Looked for every time: that of an isolated build is elsewhere in the next one.
  find_program(nvcc nvcc PATHS ${places} ${packages} PATH_SUFFIXES bin NO_DEFAULT_PATH NO_CACHE)
  if(NOT nvcc)
    set(why "no nvcc is on PATH, in CUDA_HOME, in CUDA_PATH or among Python's packages")
    if(FANANO_CUDA STREQUAL "PIP")
      set(why "no nvcc is among the packages of ${Python_EXECUTABLE}")
    endif()
    set(FANANO_WHY_NO_NVCC ${why} PARENT_SCOPE)
    return()
  endif()
  # One that is too old, or does not take this host compiler, is as good as none.
  set(try ${CMAKE_CURRENT_BINARY_DIR}/nvcc_works.cu)
  set(command ${nvcc} ${FANANO_NVCC_FLAGS} ${FANANO_NVCC_MODULE} -c ${try} -o ${try}.o)
  if(NOT FANANO_NVCC_WORKS STREQUAL command)
    file(WRITE ${try} "#include <cuda_runtime_api.h>\n__global__ void nothing() {}\n")
    execute_process(COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${command}
                    RESULT_VARIABLE failed OUTPUT_QUIET ERROR_VARIABLE words)
    if(failed)
      message(STATUS "${nvcc} does not compile: ${words}")
      set(FANANO_WHY_NO_NVCC "${nvcc} does not compile what it was tried with" PARENT_SCOPE)
      return()
    endif()
    set(FANANO_NVCC_WORKS "${command}" CACHE INTERNAL "What was tried, and worked")
  endif()
  set(FANANO_NVCC ${nvcc} PARENT_SCOPE)
  # An nvcc on PATH may be a script; it says itself where its files are.
  execute_process(COMMAND ${nvcc} --dryrun -c ${try} OUTPUT_QUIET ERROR_VARIABLE words)
  string(REGEX MATCH "INCLUDES=\"-I([^\"]+)" includes "${words}")
  set(FANANO_CUDA_HEADERS ${CMAKE_MATCH_1} PARENT_SCOPE)
  string(REGEX MATCH "TOP=([^\n]+)" top "${words}")
  find_library(cudart cudart_static PATHS ${CMAKE_MATCH_1} PATH_SUFFIXES lib64 lib lib/x64
               NO_DEFAULT_PATH NO_CACHE)
  set(FANANO_CUDART ${cudart} PARENT_SCOPE)
endfunction()

file(REMOVE ${PROJECT_BINARY_DIR}/generated/cuda.json)  # of a configuration that found an nvcc
if(NOT FANANO_CUDA MATCHES "^(AUTO|OFF|REQUIRE|PIP)$")
  message(FATAL_ERROR "FANANO_CUDA is ${FANANO_CUDA}, expected AUTO, OFF, REQUIRE or PIP")
elseif(FANANO_CUDA STREQUAL "OFF")
  set(FANANO_WHY_NO_NVCC "FANANO_CUDA is OFF")
else()
  fanano_find_nvcc()
endif()

# ---- instances -----------------------------------------------------------------------------------
# Makes the sources of all rows and kernels_table.hpp. FANANO_CUDA_INSTANCES: these sources and
# those of kernels that have no rows, all that the module has and the report is of. Of flash
# attention the first row that takes a problem has the fewest columns, and is not General without
# need; few queries are decode's; what none of sm_80's takes is left to the plain one of its dtype.
function(fanano_cuda_instances)
  set(sources ${PROJECT_SOURCE_DIR}/cuda/upload.cu)
  foreach(dtype IN LISTS FANANO_CUDA_DTYPES)
    set(type ${cuda_type_${dtype}})
    set(source ${PROJECT_BINARY_DIR}/generated/kernels_${dtype}.cu)
    configure_file(${PROJECT_SOURCE_DIR}/cuda/instance.cu.in ${source} @ONLY)
    list(APPEND sources ${source})
    string(APPEND cuda_declarations "extern const Kernels kernels_${dtype};\n")
    string(APPEND cuda_rows "&kernels_${dtype}, ")
    string(APPEND plain_declarations "extern const FlashKernel flash_plain_${dtype};\n")
    string(APPEND plain_rows "&flash_plain_${dtype}, ")
    string(APPEND cuda_declarations "extern const BackwardKernel backward_plain_${dtype};\n")
    string(APPEND plain_backward_rows "&backward_plain_${dtype}, ")
  endforeach()
  foreach(dim IN LISTS FANANO_CUDA_DIMS)
    foreach(dtype IN LISTS FANANO_CUDA_FLASH_DTYPES)
      set(type ${cuda_type_${dtype}})
      set(variant ${dtype}_${dim})
      set(source ${PROJECT_BINARY_DIR}/generated/decode_${variant}.cu)
      configure_file(${PROJECT_SOURCE_DIR}/cuda/decode_instance.cu.in ${source} @ONLY)
      list(APPEND sources ${source})
      string(APPEND cuda_declarations "extern const FlashKernel decode_${variant};\n")
      string(APPEND cuda_flash_rows "&decode_${variant}, ")
    endforeach()
    foreach(kind plain general)
      set(is_general false)
      if(kind STREQUAL general)
        set(is_general true)
      endif()
      foreach(dtype IN LISTS FANANO_CUDA_FLASH_DTYPES)
        set(type ${cuda_type_${dtype}})
        set(variant ${dtype}_${dim}_${kind})
        set(source ${PROJECT_BINARY_DIR}/generated/flash_${variant}.cu)
        configure_file(${PROJECT_SOURCE_DIR}/cuda/flash_instance.cu.in ${source} @ONLY)
        list(APPEND sources ${source})
        string(APPEND cuda_declarations "extern const FlashKernel flash_${variant};\n")
        string(APPEND cuda_flash_rows "&flash_${variant}, ")
        if(NOT dim IN_LIST FANANO_CUDA_BACKWARD_DIMS)
          continue()
        endif()
        set(source ${PROJECT_BINARY_DIR}/generated/backward_${variant}.cu)
        configure_file(${PROJECT_SOURCE_DIR}/cuda/backward_instance.cu.in ${source} @ONLY)
        list(APPEND sources ${source})
        string(APPEND cuda_declarations "extern const BackwardKernel backward_${variant};\n")
        string(APPEND cuda_backward_rows "&backward_${variant}, ")
      endforeach()
    endforeach()
  endforeach()
  string(APPEND cuda_declarations "${plain_declarations}")
  string(APPEND cuda_flash_rows "${plain_rows}")
  string(APPEND cuda_backward_rows "${plain_backward_rows}")
  list(TRANSFORM FANANO_CUDA_MACHINE_CODE REPLACE "(.+)" [["\1"]] OUTPUT_VARIABLE cuda_machine_code)
  list(JOIN cuda_machine_code ", " cuda_machine_code)
  configure_file(${PROJECT_SOURCE_DIR}/cuda/kernels_table.hpp.in
                 ${PROJECT_BINARY_DIR}/generated/kernels_table.hpp @ONLY)
  set(FANANO_CUDA_INSTANCES ${sources} PARENT_SCOPE)
endfunction()

# How kernels are compiled, for mutate.py, which compiles them itself, and of which sources and
# machines the report is: generated/cuda.json.
function(fanano_describe_cuda)
  set(flags ${FANANO_NVCC_FLAGS})
  set(ptx ${FANANO_NVCC_PTX})
  set(includes ${FANANO_CUDA_INCLUDES})
  set(machines ${FANANO_CUDA_MACHINE_CODE})
  set(sources ${FANANO_CUDA_INSTANCES})
  foreach(key flags ptx includes machines sources)
    list(TRANSFORM ${key} REPLACE "(.+)" [["\1"]] OUTPUT_VARIABLE quoted)
    list(JOIN quoted ", " quoted)
    string(APPEND text ",\n \"${key}\": [${quoted}]")
  endforeach()
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/cuda.json @ONLY
       CONTENT "{\"nvcc\": \"${FANANO_NVCC}\"${text}}\n")
endfunction()

if(FANANO_NVCC)
  fanano_cuda_instances()
  fanano_describe_cuda()
endif()

# ---- objects -------------------------------------------------------------------------------------
# One source, compiled by nvcc with these flags. Sets ${object} to what comes out; beside it lies
# what nvcc said.
function(fanano_cuda_object object source)
  cmake_path(GET source STEM name)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/cuda_objects/${name}.o)
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/cuda_objects)
  list(TRANSFORM FANANO_CUDA_INCLUDES PREPEND -I OUTPUT_VARIABLE includes)
  add_custom_command(
    OUTPUT ${out} BYPRODUCTS ${out}.log
    COMMAND ${CMAKE_COMMAND} -D OUT=${out} -P ${PROJECT_SOURCE_DIR}/cmake/nvcc.cmake --
            ${CMAKE_CXX_COMPILER_LAUNCHER} ${FANANO_NVCC} ${FANANO_NVCC_FLAGS} ${ARGN} ${includes}
            -MD -MF ${out}.d -x cu -c ${source} -o ${out}
    DEPENDS ${source} ${PROJECT_SOURCE_DIR}/cmake/nvcc.cmake DEPFILE ${out}.d
    VERBATIM COMMENT "nvcc ${name}")
  set(${object} ${out} PARENT_SCOPE)
endfunction()

# Sets ${objects} to all kernels, compiled with these flags.
function(fanano_cuda_kernels objects)
  foreach(source IN LISTS FANANO_CUDA_INSTANCES)
    fanano_cuda_object(object ${source} ${ARGN})
    list(APPEND all ${object})
  endforeach()
  set(${objects} ${all} PARENT_SCOPE)
endfunction()

# ---- what the core links -------------------------------------------------------------------------
set(FANANO_CUDA_SOURCES cpp/no_cuda/cuda.cpp)
if(NOT FANANO_NVCC)
  set(why ${FANANO_WHY_NO_NVCC})
elseif(NOT FANANO_CUDART)
  set(why "there is no static CUDA runtime (cudart_static) beside ${FANANO_NVCC}")
elseif(FANANO_SANITIZE)
  set(why "what nvcc makes is not sanitized")
else()
  fanano_cuda_kernels(kernels ${FANANO_NVCC_MODULE})
  set(FANANO_CUDA_SOURCES cuda/attention.cpp ${kernels})
  set(FANANO_CUDA_LIBRARIES ${FANANO_CUDART} ${CMAKE_DL_LIBS} $<$<PLATFORM_ID:Linux>:rt>)
  message(STATUS "CUDA: kernels by ${FANANO_NVCC}")
endif()
if(why)
  if(FANANO_CUDA MATCHES "^(REQUIRE|PIP)$")
    message(FATAL_ERROR "FANANO_CUDA=${FANANO_CUDA}: ${why}. Install CUDA 12.8 or newer, 13.0 is \
tested, and set CUDA_HOME to it; or let pip fetch nvcc: pip install -C fanano.cuda=pip")
  endif()
  message(STATUS "CUDA: no kernels (${why})")
endif()
