// From the boot loader (Multiboot 1) to 64 bits, with every vector register switched on; from there
// to a program and back; and from the program's system calls to system.c. All in ring 0, no
// interrupts, memory up to 4 GiB where its addresses say.
.set magic, 0x1BADB002
.set flags, 0x00010003 // memory in pages, and the addresses below in place of an ELF header

.code32
.section .text.start, "ax"
.globl start
start:
  jmp start32
.balign 4
header:
  .long magic, flags, -(magic + flags)
  .long header, start, data_end, bss_end, start

start32:
  cli
  mov $stack_top, %esp
  // Page tables: 4 GiB in pages of 2 MiB, each at its own address.
  mov $level3, %eax
  or $3, %eax
  mov %eax, level4
  mov $level2, %eax
  or $3, %eax
  mov $level3, %edi
  mov $4, %ecx
1:
  mov %eax, (%edi)
  add $8, %edi
  add $4096, %eax
  loop 1b
  mov $level2, %edi
  mov $0x83, %eax
  mov $2048, %ecx
2:
  mov %eax, (%edi)
  add $8, %edi
  add $0x200000, %eax
  loop 2b
  mov $0x40620, %eax // CR4: physical address extension, SSE and its exceptions, XSAVE
  mov %eax, %cr4
  mov $level4, %eax
  mov %eax, %cr3
  mov $0xC0000080, %ecx // EFER: long mode, SYSCALL
  rdmsr
  or $0x101, %eax
  wrmsr
  mov %cr0, %eax
  and $~4, %eax // no emulation of the FPU
  or $0x80000003, %eax
  mov %eax, %cr0
  lgdt descriptors_at
  ljmp $8, $start64
.balign 8
descriptors:
  .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF
descriptors_at:
  .word 23
  .long descriptors

.code64
start64:
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $stack_top, %rsp
  xor %ecx, %ecx // XCR0: x87, SSE, AVX, AVX-512
  mov $0xe7, %eax
  xor %edx, %edx
  xsetbv
  fninit
  mov $0xC0000081, %ecx // STAR: where SYSCALL finds the segments
  xor %eax, %eax
  mov $8, %edx
  wrmsr
  mov $0xC0000082, %ecx // LSTAR
  mov $system_call, %eax
  xor %edx, %edx
  wrmsr
  mov $0xC0000084, %ecx // FMASK
  xor %eax, %eax
  wrmsr
  lidt interrupts_at
  call run_all
3:
  hlt
  jmp 3b

// Linux's convention: the number in rax, arguments in rdi, rsi, rdx, r10, r8; rcx and r11 are lost.
system_call:
  mov %rsp, program_rsp
  mov $system_stack_top, %rsp
  push %rcx
  push %r11
  push %rdi
  push %rsi
  push %rdx
  push %r10
  push %r8
  push %r9
  mov %r8, %r9
  mov %r10, %r8
  mov %rdx, %rcx
  mov %rsi, %rdx
  mov %rdi, %rsi
  mov %rax, %rdi
  call system
  pop %r9
  pop %r8
  pop %r10
  pop %rdx
  pop %rsi
  pop %rdi
  pop %r11
  pop %rcx
  push %r11
  popfq
  mov program_rsp, %rsp
  jmp *%rcx

// enter(entry, stack) returns when leave() is called.
.globl enter, leave
enter:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, system_rsp
  mov %rsi, %rsp
  xor %edx, %edx
  xor %ebp, %ebp
  jmp *%rdi
leave:
  mov system_rsp, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret

// Exceptions: some push a code of their error, for the others we do.
.altmacro
.macro vector n
vector_\n:
  .if (\n == 8) || (\n >= 10 && \n <= 14) || (\n == 17) || (\n == 21)
  .else
  push $0
  .endif
  push $\n
  jmp exception
.endm
.macro address n
  .quad vector_\n
.endm
.set i, 0
.rept 32
  vector %i
  .set i, i + 1
.endr
exception:
  mov (%rsp), %rdi
  mov 8(%rsp), %rsi
  mov 16(%rsp), %rdx
  and $-16, %rsp
  call fault

.section .rodata
.globl vectors
vectors:
.set i, 0
.rept 32
  address %i
  .set i, i + 1
.endr

.section .data
interrupts_at:
  .word 32 * 16 - 1
  .quad interrupts
.include "programs.s"

.section .bss
.balign 4096
level4: .skip 4096
level3: .skip 4096
level2: .skip 4 * 4096
.globl interrupts
interrupts: .skip 32 * 16
  .skip 65536
stack_top:
  .skip 65536
system_stack_top:
program_rsp: .skip 8
system_rsp: .skip 8

.section .note.GNU-stack, "", @progbits
