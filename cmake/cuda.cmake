# CUDA is a switch: off when no compiler is found. The Python module has no CUDA kernels yet: every
# build links the stand-ins of cpp/no_cuda, and asking for CUDA says so. What is built is what the
# tests execute (tests/cuda), with an nvcc alone: no GPU, no driver, no cudart.
if(FANANO_CUDA STREQUAL "REQUIRE")
  message(FATAL_ERROR "FANANO_CUDA=REQUIRE: this version of fanano has no CUDA kernels yet")
endif()
set(FANANO_CUDA_SOURCES cpp/no_cuda/cuda.cpp)

# THE CUDA VARIANT TABLE: the dtypes that the kernels are built for, each with its C++ type, and the
# architecture; of flash attention by sm_80's instructions the dtypes and the columns, for each of
# which cuda/flash_tiles.cuh has the tiles. Adding a row here builds and tests it. For daily work,
# FANANO_CUDA_DIMS=64 builds flash attention of 64 columns alone.
set(FANANO_CUDA_ARCHITECTURE 80)
set(FANANO_CUDA_DTYPES float64 float32 bfloat16 float16)
set(cuda_type_float64 double)
set(cuda_type_float32 float)
set(cuda_type_bfloat16 bfloat16)
set(cuda_type_float16 float16)
set(FANANO_CUDA_FLASH_DTYPES bfloat16 float16)
set(FANANO_CUDA_DIMS 32 64 96 128 256 CACHE STRING "Columns of flash attention on CUDA")

# No contraction, as on the CPU: a product and a sum are fused where the source says so. PTX alone,
# readable as it stands, with the lines it came from.
set(FANANO_NVCC_FLAGS
  -std=c++20 -O3 -lineinfo -fmad=false -cudart none --no-compress
  -gencode arch=compute_${FANANO_CUDA_ARCHITECTURE},code=compute_${FANANO_CUDA_ARCHITECTURE}
  -Xcompiler -Wall,-Wextra,-fPIC -ccbin ${CMAKE_CXX_COMPILER})

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
      execute_process(COMMAND ${FANANO_FOUND_NVCC} ${FANANO_NVCC_FLAGS} -c ${try} -o ${try}.o
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
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${FANANO_NVCC} ${FANANO_NVCC_FLAGS} -I${PROJECT_SOURCE_DIR}/cuda
            -I${PROJECT_SOURCE_DIR}/cpp -I${PROJECT_BINARY_DIR}/generated ${ARGN}
            -MD -MF ${out}.d -x cu -c ${source} -o ${out}
    DEPENDS ${source} DEPFILE ${out}.d VERBATIM COMMENT "nvcc ${name}")
  set(${object} ${out} PARENT_SCOPE)
endfunction()

# Sets ${objects} to the kernels of all rows.
function(fanano_cuda_kernels objects)
  foreach(dtype IN LISTS FANANO_CUDA_DTYPES)
    set(type ${cuda_type_${dtype}})
    configure_file(${PROJECT_SOURCE_DIR}/cuda/instance.cu.in
                   ${PROJECT_BINARY_DIR}/generated/kernels_${dtype}.cu @ONLY)
    fanano_cuda_object(object ${PROJECT_BINARY_DIR}/generated/kernels_${dtype}.cu)
    list(APPEND all ${object})
    string(APPEND cuda_declarations "extern const Kernels kernels_${dtype};\n")
    string(APPEND cuda_rows "&kernels_${dtype}, ")
  endforeach()
  configure_file(${PROJECT_SOURCE_DIR}/cuda/kernels_table.hpp.in
                 ${PROJECT_BINARY_DIR}/generated/kernels_table.hpp @ONLY)
  fanano_cuda_flash(flash)
  set(${objects} ${all} ${flash} PARENT_SCOPE)
endfunction()

# Of flash attention: the first row that takes a problem has the fewest columns, and is not General
# without need.
function(fanano_cuda_flash objects)
  set(all)
  set(cuda_declarations)
  set(cuda_rows)
  foreach(dim IN LISTS FANANO_CUDA_DIMS)
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
        fanano_cuda_object(object ${source})
        list(APPEND all ${object})
        string(APPEND cuda_declarations "extern const FlashKernel flash_${variant};\n")
        string(APPEND cuda_rows "&flash_${variant}, ")
      endforeach()
    endforeach()
  endforeach()
  configure_file(${PROJECT_SOURCE_DIR}/cuda/flash_table.hpp.in
                 ${PROJECT_BINARY_DIR}/generated/flash_table.hpp @ONLY)
  set(${objects} ${all} PARENT_SCOPE)
endfunction()
