// AMX has eight tiles of 16 rows of 64 bytes. Included within a region of code for AMX.

constexpr int TILE = 16, PAIRS = 512;  // rows of a tile, and bfloat16 numbers in it

// Compilers do not see that tiles are loaded from memory: this keeps earlier stores before later loads.
#define THRESHER_STORED asm volatile("" ::: "memory")

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// Sanitizers do not see what a tile reads and writes: code for them also reads or writes the ends of the rows.
static inline void read_tile(const void* from, int64_t stride) {
  auto row = static_cast<const volatile char*>(from);
  for (int i = 0; i < TILE; ++i, row += stride) static_cast<void>(row[0] + row[63]);
}
static inline void write_tile(void* to, int64_t stride) {
  auto row = static_cast<volatile char*>(to);
  for (int i = 0; i < TILE; ++i, row += stride) row[0] = row[63] = 0;
}
#define THRESHER_LOAD(tile, from, stride) \
  do {                                    \
    read_tile(from, stride);              \
    _tile_loadd(tile, from, stride);      \
  } while (false)
#define THRESHER_STORE(tile, to, stride) \
  do {                                   \
    write_tile(to, stride);              \
    _tile_stored(tile, to, stride);      \
  } while (false)
#else
#define THRESHER_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define THRESHER_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#endif

struct alignas(64) Shapes {
  uint8_t palette = 1, start = 0, unused[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static const Shapes SHAPES;
