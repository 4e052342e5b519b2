# The ISA table: name and compiler flags, best last. Adding a row here builds, tests and dispatches
# it. What a row needs at run time is read off the flags themselves (cpp/cpu/isa.hpp).
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(FANANO_ISAS scalar avx2 avx512 avx512bf16 amx)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(FANANO_ISAS scalar neon)
else()
  set(FANANO_ISAS scalar)
endif()
set(isa_scalar)
set(isa_avx2 -mavx2 -mfma -mf16c)
set(isa_avx512 ${isa_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512)
set(isa_avx512bf16 ${isa_avx512} -mavx512bf16)
set(isa_amx ${isa_avx512bf16} -mamx-tile -mamx-bf16)
# The files that a row's own flags change, of which it takes products of pairs alone (kernels.cpp);
# all else is that of the row that it adds to, which must be there, too.
set(own_avx512bf16 flash backward backward_rows backward_bias peak)
set(shared_avx512bf16 avx512)
set(own_amx flash backward backward_rows backward_bias peak)
set(shared_amx avx512)
if(FANANO_EMULATE)
  # Of AVX2, and what they lack in software (cpp/cpu/simd/emulated.hpp). GCC 12 takes a quarter of
  # an hour for some files.
  set(isa_avx512 ${isa_avx2} -DFANANO_EMULATED)
  set(isa_avx512bf16 ${isa_avx512} -DFANANO_PAIRS)
  set(isa_amx ${isa_avx512bf16} -DFANANO_TILES)
endif()
set(isa_neon -DFANANO_NEON)  # every aarch64 has it, so no flag of the compiler tells the rows apart

# Sanitized, a row takes minutes to compile: there are the last resort and the best that this
# machine can run, with the one that it shares. What another would add is the same text.
if(FANANO_SANITIZE AND EXISTS /proc/cpuinfo)
  if("avx2" IN_LIST FANANO_ISAS)
    set(FANANO_ISAS scalar)
  endif()
  set(cpuinfo_avx2 avx2)
  set(cpuinfo_avx512 avx512dq)
  set(cpuinfo_avx512bf16 avx512_bf16)
  set(cpuinfo_amx amx_bf16)
  file(STRINGS /proc/cpuinfo cpuinfo REGEX "^flags" LIMIT_COUNT 1)
  foreach(isa avx2 avx512 avx512bf16 amx)
    if("${cpuinfo} " MATCHES " ${cpuinfo_${isa}} ")
      set(FANANO_ISAS scalar ${shared_${isa}} ${isa})
    endif()
  endforeach()
endif()
