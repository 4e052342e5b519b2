# CUDA is a switch: off when no compiler is found. The kernels themselves are not written yet, so
# every build links the stand-ins of cpp/no_cuda, and asking for CUDA says so.
if(FANANO_CUDA STREQUAL "REQUIRE")
  message(FATAL_ERROR "FANANO_CUDA=REQUIRE: this version of fanano has no CUDA kernels yet")
endif()
set(FANANO_CUDA_SOURCES cpp/no_cuda/cuda.cpp)
