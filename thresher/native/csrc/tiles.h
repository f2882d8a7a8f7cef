// AMX tiles: 16 rows of 64 bytes, eight of them. Included within a region of code for such machines.

constexpr int TILE = 16, PAIRS = 512;  // rows of a tile, and bfloat16 numbers in it

// Ask for the tiles: the kernel gives their room to those who do. 18 is their number among the processor's states.
static bool here() {
  unsigned a, b, c, d, a1, b1, c1, d1;
  const bool known = __get_cpuid_count(7, 0, &a, &b, &c, &d) && __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
  const bool able = known && (d >> 22 & 1) && (d >> 24 & 1) && (a1 >> 5 & 1);  // amx-bf16, amx-tile, avx512-bf16
  return able && !syscall(SYS_arch_prctl, 0x1023, 18);
}

// Compilers do not see that tiles are loaded from memory: this keeps what is stored before it in front.
#define THRESHER_STORED asm volatile("" ::: "memory")

struct alignas(64) Shapes {
  uint8_t palette = 1, start = 0, unused[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static const Shapes SHAPES;
