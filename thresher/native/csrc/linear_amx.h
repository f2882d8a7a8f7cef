// Linear layers on AMX, in bfloat16 or int8. Rows are rounded, laid out in tiles, multiplied, and finished (size, bias,
// GELU) while they are in cache. There is a tile of weights for every 16 outputs and, within them, for every 64 bytes
// of inputs. Each of its 16 rows holds (4 / bytes of a number) inputs of each of the 16 outputs.

constexpr int64_t BYTES = 1024;  // of a tile

// Products of 16 or 32 rows with 32 outputs.
template <bool INT8, int STRIPS>
static inline void multiply(const char* rows, const char* weights, int64_t chunks, char* products) {
  _tile_zero(0);
  _tile_zero(1);
  if (STRIPS == 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t c = 0; c < chunks; ++c) {
    THRESHER_LOAD(4, rows + c * BYTES, 64);
    THRESHER_LOAD(6, weights + c * BYTES, 64);
    THRESHER_LOAD(7, weights + (chunks + c) * BYTES, 64);
    if (STRIPS == 2) THRESHER_LOAD(5, rows + (chunks + c) * BYTES, 64);
    if (INT8) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      if (STRIPS == 2) {
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
      }
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if (STRIPS == 2) {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  THRESHER_STORE(0, products, 128);
  THRESHER_STORE(1, products + 64, 128);
  if (STRIPS == 2) {
    THRESHER_STORE(2, products + 16 * 128, 128);
    THRESHER_STORE(3, products + 16 * 128 + 64, 128);
  }
}

// Finish sixteen products of a row.
template <bool INT8>
static inline F finished(const void* products, float size, F weight_sizes, F bias, int64_t activation) {
  F value = INT8 ? (F)_mm512_cvtepi32_ps(_mm512_loadu_si512(products)) * (weight_sizes * size)
                 : load(static_cast<const float*>(products));
  value += bias;
  with_activation(static_cast<int32_t>(activation), [&](auto kind) {
    value = activated<Halves, decltype(kind)::value>(value);
  });
  return value;
}

// Write two vectors of numbers, of which `count` have room.
template <class T>
static inline void write(T* to, F low, F high, int64_t count) {
  T some[32];
  T* made = count < 32 ? some : to;
  if constexpr (sizeof(T) == 2) {
    const __m512bh both = _mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    _mm512_storeu_si512(made, reinterpret_cast<const __m512i&>(both));
  } else {
    store(made, low);
    store(made + 16, high);
  }
  if (count < 32) std::memcpy(to, some, count * sizeof(T));
}

// Products of `count` rows with 32 outputs from `output` on.
template <bool INT8, class T>
static void finish_block(const LinearWork& w, const char* products, const float* sizes, int64_t row, int64_t count,
                         int64_t output) {
  const F bias = load(w.linear.bias + output), next_bias = load(w.linear.bias + output + 16);  // padded after the last output
  const F weight_sizes = INT8 ? load(w.linear.sizes + output) : F{};
  const F next_sizes = INT8 ? load(w.linear.sizes + output + 16) : F{};
  T* to = static_cast<T*>(w.target) + row * w.linear.outputs + output;
  for (int64_t r = 0; r < count; ++r, products += 128, to += w.linear.outputs) {
    const float size = INT8 ? sizes[r] : 0.0f;
    write(to, finished<INT8>(products, size, weight_sizes, bias, w.activation),
          finished<INT8>(products + 64, size, next_sizes, next_bias, w.activation), w.linear.outputs - output);
  }
}

// Rows [row, row + count) times outputs [output, end).
template <bool INT8, class T>
static void run(const LinearWork& w, int64_t row, int64_t count, int64_t output, int64_t end) {
  constexpr int64_t NUMBERS = INT8 ? 64 : 32;  // in a row of a tile
  const int64_t chunks = (w.linear.inputs + NUMBERS - 1) / NUMBERS, strips = (count + TILE - 1) / TILE;
  Scratch scratch;
  char* tiles = scratch.take<char>(strips * chunks * BYTES);
  float* sizes = scratch.take<float>(count);
  char* line = scratch.take<char>(chunks * 64);
  char* products = scratch.take<char>(4 * BYTES);
  std::memset(line, 0, chunks * 64);
  for (int64_t r = 0; r < strips * TILE; ++r) {
    const T* from = static_cast<const T*>(w.source) + (row + r) * w.stride;
    if (r >= count)
      std::memset(line, 0, chunks * 64);
    else if constexpr (INT8)
      quantise_row(from, w.linear.inputs, reinterpret_cast<int8_t*>(line), sizes + r);
    else
      std::copy_n(from, w.linear.inputs, reinterpret_cast<T*>(line));
    char* to = tiles + r / TILE * chunks * BYTES + r % TILE * 64;
    for (int64_t c = 0; c < chunks; ++c) std::memcpy(to + c * BYTES, line + c * 64, 64);
  }
  THRESHER_STORED;
  _tile_loadconfig(&SHAPES);
  for (; output < end; output += 32) {
    const char* weights = static_cast<const char*>(w.linear.weights) + output / 16 * chunks * BYTES;
    for (int64_t r = 0; r < count; r += 32) {
      const int64_t some = std::min<int64_t>(32, count - r);
      const char* from = tiles + r / TILE * chunks * BYTES;
      if (some > TILE)
        multiply<INT8, 2>(from, weights, chunks, products);
      else
        multiply<INT8, 1>(from, weights, chunks, products);
      THRESHER_STORED;
      finish_block<INT8, T>(w, products, sizes + r, row + r, some, output);
    }
  }
  _tile_release();
}
