# Runs a command of nvcc, and keeps what it says in OUT.log, for the static report: of ptxas's
# accounts of every kernel (-Xptxas=-v) only its advisories are shown.
#
#     cmake -D OUT=file -P nvcc.cmake -- command...
set(command)
set(seen FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
  if(seen)
    list(APPEND command "${CMAKE_ARGV${i}}")
  elseif(CMAKE_ARGV${i} STREQUAL "--")
    set(seen TRUE)
  endif()
endforeach()
execute_process(COMMAND ${command} RESULT_VARIABLE failed ERROR_VARIABLE log)
file(WRITE "${OUT}.log" "${log}")
set(account "(ptxas info +: [^(][^\n]*| +[0-9]+ bytes stack frame[^\n]*)\n")
string(REGEX REPLACE "${account}" "" said "${log}")
if(failed)
  message(FATAL_ERROR "${said}")
elseif(said)
  message("${said}")
endif()
