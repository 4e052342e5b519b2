// What a static program of one thread asks of Linux, as far as our tests do: output, memory, a few
// answers. run_all() runs the programs that run.py has put into the image, one after the other.
#include <stdint.h>

struct Program {
  const char *name, *environment;
  const uint8_t* file;
};
extern const struct Program programs[];  // programs.s; the last one has no name

extern const uint64_t vectors[32];
extern struct {
  uint16_t low, segment;
  uint8_t stack, type;
  uint16_t middle;
  uint32_t high, zero;
} interrupts[32];

void enter(uint64_t entry, uint64_t* stack);
_Noreturn void leave(void);

enum { image = 0x8000000, heap = 0x10000000, heap_end = 0x3d000000, stack_bottom = 0x3f000000 };
enum { no_such_file = -2, again = -11, no_memory = -12, invalid = -22, no_terminal = -25 };
enum { no_such_call = -38 };

static uint64_t program_break, mapped;
static int64_t status;

// ---- for us --------------------------------------------------------------------------------------

static void out(uint16_t port, uint8_t byte) {
  __asm__ volatile("outb %0, %1" ::"a"(byte), "d"(port));
}
static void put(char c) { out(0xe9, (uint8_t)c); }  // Bochs prints it
static void text(const char* s) {
  while (*s) put(*s++);
}
static void hex(uint64_t x) {
  for (int i = 60; i >= 0; i -= 4) put("0123456789abcdef"[x >> i & 15]);
}
static void decimal(int64_t x) {
  if (x < 0) put('-'), x = -x;
  if (x >= 10) decimal(x / 10);
  put((char)('0' + x % 10));
}
static _Noreturn void shut_down(void) {
  for (const char* s = "Shutdown"; *s; ++s) out(0x8900, (uint8_t)*s);
  for (;;) __asm__ volatile("hlt");
}

void* memcpy(void* to, const void* from, uint64_t n) {
  for (uint64_t i = 0; i < n; ++i) ((uint8_t*)to)[i] = ((const uint8_t*)from)[i];
  return to;
}
void* memset(void* to, int byte, uint64_t n) {
  for (uint64_t i = 0; i < n; ++i) ((uint8_t*)to)[i] = (uint8_t)byte;
  return to;
}

_Noreturn void fault(uint64_t vector, uint64_t error, uint64_t address) {
  uint64_t memory;
  __asm__ volatile("mov %%cr2, %0" : "=r"(memory));
  text("\nexception "), decimal((int64_t)vector), text(", error "), hex(error);
  text(", at "), hex(address), text(", memory "), hex(memory), text("\n");
  shut_down();
}

// ---- for programs --------------------------------------------------------------------------------

static int64_t write_all(const char* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) put(from[i]);
  return n;
}

static int64_t map(uint64_t size) {
  size = (size + 4095) & ~4095ul;
  if (size > heap_end - mapped) return no_memory;
  memset((void*)mapped, 0, size);
  mapped += size;
  return (int64_t)(mapped - size);
}

int64_t system(int64_t call, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e) {
  (void)e;
  switch (call) {
    case 1: return write_all((const char*)b, c);
    case 20: {  // writev
      int64_t n = 0, *part = (int64_t*)b;
      for (; c > 0; --c, part += 2) n += write_all((const char*)part[0], part[1]);
      return n;
    }
    case 9: return map((uint64_t)b);
    case 12:                                         // brk
      if (a > image) return (int64_t)program_break;  // the C library maps memory then
      if ((uint64_t)a > program_break) memset((void*)program_break, 0, (uint64_t)a - program_break);
      if (a) program_break = (uint64_t)a;
      return (int64_t)program_break;
    case 158:                           // arch_prctl
      if (a != 0x1002) return invalid;  // ARCH_SET_FS
      __asm__ volatile("wrmsr" ::"c"(0xC0000100), "a"((uint32_t)b), "d"((uint32_t)(b >> 32)));
      return 0;
    case 5:  // fstat, newfstatat: a terminal
    case 262: {
      uint8_t* found = memset((void*)(call == 5 ? b : c), 0, 144);
      *(uint32_t*)(found + 24) = 020620, *(uint64_t*)(found + 56) = 1024;
      return 0;
    }
    case 302:  // prlimit64: the stack
      if (d) ((uint64_t*)d)[0] = 8 << 20, ((uint64_t*)d)[1] = ~0ul;
      return 0;
    case 204:  // sched_getaffinity: one CPU
      memset((void*)c, 0, (uint64_t)b);
      *(uint8_t*)c = 1;
      return 8;
    case 228: {  // clock_gettime
      uint32_t low, high;
      __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
      uint64_t now = (uint64_t)high << 32 | low;
      ((uint64_t*)b)[0] = now / 1000000000, ((uint64_t*)b)[1] = now % 1000000000;
      return 0;
    }
    case 318:  // getrandom
      for (int64_t i = 0; i < b; ++i) ((uint8_t*)a)[i] = (uint8_t)(i * 37 + 11);
      return b;
    // getpid, gettid, set_tid_address: one process, one thread
    case 39:
    case 186:
    case 218: return 1;
    // mprotect, munmap, madvise; rt_sigaction, rt_sigprocmask, sched_yield, nanosleep; futex,
    // clock_nanosleep, set_robust_list: nothing to do
    case 10:
    case 11:
    case 28:
    case 13:
    case 14:
    case 24:
    case 35:
    case 202:
    case 230:
    case 273: return 0;
    // open, stat, access, readlink, openat, readlinkat
    case 2:
    case 4:
    case 21:
    case 89:
    case 257:
    case 267: return no_such_file;
    case 16:
      return no_terminal;  // ioctl
    // clone, clone3: no second thread
    case 56:
    case 435: return again;
    // mremap, rseq: the C library does without
    case 25:
    case 334: return no_such_call;
    // tgkill, which is abort(); exit, exit_group
    case 234: status = 134; leave();
    case 60:
    case 231: status = a; leave();
    default: text("system call "), decimal(call), text("\n"); return no_such_call;
  }
}

// Loads an ELF file, linked statically for fixed addresses, and runs it from its entry.
static void run(const struct Program* p) {
  const uint8_t* file = p->file;
  uint64_t entry = *(uint64_t*)(file + 24), headers = *(uint64_t*)(file + 32), end = 0, first = 0;
  uint16_t size = *(uint16_t*)(file + 54), count = *(uint16_t*)(file + 56);
  for (uint16_t i = 0; i < count; ++i) {
    const uint8_t* header = file + headers + i * size;
    if (*(uint32_t*)header != 1) continue;  // to be loaded
    uint64_t offset = *(uint64_t*)(header + 8), address = *(uint64_t*)(header + 16);
    uint64_t in_file = *(uint64_t*)(header + 32), in_memory = *(uint64_t*)(header + 40);
    memcpy((void*)address, file + offset, in_file);
    memset((void*)(address + in_file), 0, in_memory - in_file);
    if (offset == 0) first = address;
    end = address + in_memory;
  }
  program_break = (end + 0xfffff) & ~0xffffful, mapped = heap;

  struct {
    uint64_t arguments;
    const char *name, *no_more_arguments, *environment, *threads, *no_more_environment;
    struct { uint64_t kind, value; } auxiliary[12];
  } on_stack = {1,
                p->name,
                0,
                p->environment,
                "FANANO_NUM_THREADS=1",
                0,
                {{3, first + headers},               // AT_PHDR
                 {4, size},                          // AT_PHENT
                 {5, count},                         // AT_PHNUM
                 {6, 4096},                          // AT_PAGESZ
                 {9, entry},                         // AT_ENTRY
                 {25, (uint64_t)"sixteen numbers"},  // AT_RANDOM
                 // Nobody's, for AT_UID and so on; no AT_SECURE; the end.
                 {11, 0},
                 {12, 0},
                 {13, 0},
                 {14, 0},
                 {23, 0},
                 {0, 0}}};
  text("== "), text(p->name), put(' '), text(p->environment), put('\n');
  enter(entry, memcpy((void*)stack_bottom, &on_stack, sizeof on_stack));
  text("status "), decimal(status), put('\n');
}

void run_all(void) {
  for (int i = 0; i < 32; ++i) {
    uint64_t at = vectors[i];
    interrupts[i].low = (uint16_t)at, interrupts[i].middle = (uint16_t)(at >> 16);
    interrupts[i].high = (uint32_t)(at >> 32), interrupts[i].segment = 8;
    interrupts[i].type = 0x8e;
  }
  for (const struct Program* p = programs; p->name; ++p) run(p);
  text("all have run\n");
  shut_down();
}
