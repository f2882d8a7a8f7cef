// AMX tiles: 16 rows of 64 bytes, eight of them. Included within a region of code for such machines.

constexpr int TILE = 16, PAIRS = 512;  // rows of a tile, and bfloat16 numbers in it

// Compilers do not see that tiles are loaded from memory: this keeps what is stored before it in front.
#define THRESHER_STORED asm volatile("" ::: "memory")

struct alignas(64) Shapes {
  uint8_t palette = 1, start = 0, unused[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static const Shapes SHAPES;
