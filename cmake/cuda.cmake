# CUDA is a switch: off when no compiler is found. The Python module has no CUDA kernels yet: every
# build links the stand-ins of cpp/no_cuda, and asking for CUDA says so. What is built is what the
# tests execute (tests/cuda), with an nvcc alone: no GPU, no driver, no cudart.
if(FANANO_CUDA STREQUAL "REQUIRE")
  message(FATAL_ERROR "FANANO_CUDA=REQUIRE: this version of fanano has no CUDA kernels yet")
endif()
set(FANANO_CUDA_SOURCES cpp/no_cuda/cuda.cpp)

# THE CUDA VARIANT TABLE: the dtypes that the kernels are built for, each with its C++ type and what
# makes its flash attention, and the architecture. Adding a row here builds and tests it.
set(FANANO_CUDA_ARCHITECTURE 80)
set(FANANO_CUDA_DTYPES float32 bfloat16 float16)
set(cuda_type_float32 float)
set(cuda_type_bfloat16 bfloat16)
set(cuda_type_float16 float16)
set(cuda_flash_float32 nullptr)
set(cuda_flash_bfloat16 flash_sm80<bfloat16>)
set(cuda_flash_float16 flash_sm80<float16>)

# No contraction, as on the CPU: a product and a sum are fused where the source says so.
set(FANANO_NVCC_FLAGS
  -std=c++20 -O3 -lineinfo -fmad=false -Xcompiler -Wall,-Wextra,-fPIC -ccbin ${CMAKE_CXX_COMPILER})
# What tests execute: PTX alone, readable as it stands, with the lines it came from.
set(FANANO_NVCC_PTX
  -cudart none --no-compress
  -gencode arch=compute_${FANANO_CUDA_ARCHITECTURE},code=compute_${FANANO_CUDA_ARCHITECTURE})
# Where the kernels are to run; the static report (tests/cuda/report.py) is of these.
set(FANANO_CUDA_MACHINES sm_80 sm_90a)
set(FANANO_CUDA_INCLUDES
  ${PROJECT_SOURCE_DIR}/cuda ${PROJECT_SOURCE_DIR}/cpp ${PROJECT_BINARY_DIR}/generated)

file(REMOVE ${PROJECT_BINARY_DIR}/generated/cuda.json)  # of a configuration that found an nvcc
set(FANANO_NVCC "FANANO_NVCC-NOTFOUND")
if(FANANO_CUDA STREQUAL "OFF")
  set(FANANO_WHY_NO_NVCC "FANANO_CUDA is OFF")
elseif(NOT FANANO_TESTS)
  set(FANANO_WHY_NO_NVCC "FANANO_TESTS is OFF")
else()
  find_program(FANANO_FOUND_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin)
  mark_as_advanced(FANANO_FOUND_NVCC)
  set(FANANO_WHY_NO_NVCC "no nvcc is on PATH, in CUDA_HOME or in CUDA_PATH")
  if(FANANO_FOUND_NVCC)
    # One that is too old, or does not take this host compiler, is as good as none.
    if(NOT DEFINED FANANO_NVCC_FAILS)
      set(try ${CMAKE_CURRENT_BINARY_DIR}/nvcc_works.cu)
      file(WRITE ${try} "#include <cuda_runtime_api.h>\n__global__ void nothing() {}\n")
      execute_process(COMMAND ${FANANO_FOUND_NVCC} ${FANANO_NVCC_FLAGS} ${FANANO_NVCC_PTX}
                              -c ${try} -o ${try}.o
                      RESULT_VARIABLE failed OUTPUT_QUIET ERROR_VARIABLE words)
      if(failed)
        message(STATUS "${FANANO_FOUND_NVCC} does not compile: ${words}")
      endif()
      set(FANANO_NVCC_FAILS ${failed} CACHE INTERNAL "What a try of nvcc returned")
    endif()
    if(FANANO_NVCC_FAILS)
      set(FANANO_WHY_NO_NVCC "${FANANO_FOUND_NVCC} does not compile what it was tried with")
    else()
      set(FANANO_NVCC ${FANANO_FOUND_NVCC})
    endif()
  endif()
endif()

# One source, compiled by nvcc. Sets ${object} to what comes out.
function(fanano_cuda_object object source)
  cmake_path(GET source STEM name)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/cuda_objects/${name}.o)
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/cuda_objects)
  list(TRANSFORM FANANO_CUDA_INCLUDES PREPEND -I OUTPUT_VARIABLE includes)
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${FANANO_NVCC} ${FANANO_NVCC_FLAGS} ${FANANO_NVCC_PTX} ${includes} ${ARGN}
            -MD -MF ${out}.d -x cu -c ${source} -o ${out}
    DEPENDS ${source} DEPFILE ${out}.d VERBATIM COMMENT "nvcc ${name}")
  set(${object} ${out} PARENT_SCOPE)
endfunction()

# How kernels are compiled, for the programs that compile them themselves: generated/cuda.json.
function(fanano_describe_cuda sources)
  set(flags ${FANANO_NVCC_FLAGS})
  set(ptx ${FANANO_NVCC_PTX})
  set(includes ${FANANO_CUDA_INCLUDES})
  set(machines ${FANANO_CUDA_MACHINES})
  foreach(key flags ptx includes machines sources)
    list(TRANSFORM ${key} REPLACE "(.+)" [["\1"]] OUTPUT_VARIABLE quoted)
    list(JOIN quoted ", " quoted)
    string(APPEND text ",\n \"${key}\": [${quoted}]")
  endforeach()
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/cuda.json @ONLY
       CONTENT "{\"nvcc\": \"${FANANO_NVCC}\"${text}}\n")
endfunction()

# Sets ${objects} to the kernels of all rows.
function(fanano_cuda_kernels objects)
  foreach(dtype IN LISTS FANANO_CUDA_DTYPES)
    set(type ${cuda_type_${dtype}})
    set(flash ${cuda_flash_${dtype}})
    configure_file(${PROJECT_SOURCE_DIR}/cuda/instance.cu.in
                   ${PROJECT_BINARY_DIR}/generated/kernels_${dtype}.cu @ONLY)
    set(source ${PROJECT_BINARY_DIR}/generated/kernels_${dtype}.cu)
    fanano_cuda_object(object ${source})
    list(APPEND all ${object})
    list(APPEND sources ${source})
    string(APPEND cuda_declarations "extern const Kernels kernels_${dtype};\n")
    string(APPEND cuda_rows "&kernels_${dtype}, ")
  endforeach()
  configure_file(${PROJECT_SOURCE_DIR}/cuda/kernels_table.hpp.in
                 ${PROJECT_BINARY_DIR}/generated/kernels_table.hpp @ONLY)
  fanano_describe_cuda("${sources}")
  set(${objects} ${all} PARENT_SCOPE)
endfunction()
