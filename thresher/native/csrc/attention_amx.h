// Heads of one sequence in bfloat16 on AMX, which multiplies tiles of 16 rows; softmax and column sums are those
// of attention_strip.h, in fp32. Included by each_machine.h.
//
// A product takes rows of 32 numbers on the left, and on the right pairs of
// numbers: for a pair of dims (or of keys) 16 keys (or dims) side by side.

static inline void transpose(__m512i* row) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {  // lane k of b[4 g + i] is column 4 k + i of rows 4 g to 4 g + 3
    const __m512i even = _mm512_shuffle_i32x4(b[i], b[4 + i], 0x88), odd = _mm512_shuffle_i32x4(b[i], b[4 + i], 0xdd);
    const __m512i even2 = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0x88);
    const __m512i odd2 = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0xdd);
    row[i] = _mm512_shuffle_i32x4(even, even2, 0x88);
    row[4 + i] = _mm512_shuffle_i32x4(odd, odd2, 0x88);
    row[8 + i] = _mm512_shuffle_i32x4(even, even2, 0xdd);
    row[12 + i] = _mm512_shuffle_i32x4(odd, odd2, 0xdd);
  }
}

// 16 keys from `key` on, of which `count` are there, 32 dims of each, as one tile of pairs of dims.
static inline void pack_keys(const bf16* key, int64_t stride, int64_t count, bf16* tile) {
  __m512i row[16];
  for (int i = 0; i < 16; ++i) row[i] = i < count ? _mm512_loadu_si512(key + i * stride) : _mm512_setzero_si512();
  transpose(row);
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + 32 * i, row[i]);
}

// Values of two keys (the second may be missing), 32 dims of each, as a row of two tiles of pairs of keys.
static inline void pack_values(const bf16* value, const bf16* next, bf16* tiles) {
  const __m512i a = _mm512_loadu_si512(value), b = next ? _mm512_loadu_si512(next) : _mm512_setzero_si512();
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                       36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  _mm512_store_si512(tiles, _mm512_permutex2var_epi16(a, low, b));
  _mm512_store_si512(tiles + PAIRS, _mm512_permutex2var_epi16(a, high, b));
}

// Scores of 16 queries against `panels` times 16 keys, 2 or 4.
template <int P>
static inline void multiply_keys(const bf16* query, const bf16* keys, int64_t chunks, float* scores, int64_t stride) {
  _tile_zero(0);
  _tile_zero(1);
  if (P == 4) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t c = 0; c < chunks; ++c) {
    THRESHER_LOAD(4, query + c * PAIRS, 64);
    THRESHER_LOAD(5, keys + c * PAIRS, 64);
    THRESHER_LOAD(6, keys + (chunks + c) * PAIRS, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 6);
    if (P == 4) {
      THRESHER_LOAD(7, keys + (2 * chunks + c) * PAIRS, 64);
      THRESHER_LOAD(5, keys + (3 * chunks + c) * PAIRS, 64);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  THRESHER_STORE(0, scores, stride * 4);
  THRESHER_STORE(1, scores + 16, stride * 4);
  if (P == 4) {
    THRESHER_STORE(2, scores + 32, stride * 4);
    THRESHER_STORE(3, scores + 48, stride * 4);
  }
}

// Context rows of 16 queries, 32 dims of them, from `blocks` times 32 keys. `apart`: numbers from block to block.
static inline void multiply_values(const bf16* weights, int64_t stride, int64_t blocks, const bf16* values,
                                   int64_t apart, float* context, int64_t width) {
  _tile_zero(0);
  _tile_zero(1);
  for (int64_t b = 0; b < blocks; ++b) {
    THRESHER_LOAD(4, weights + 32 * b, stride * 2);
    THRESHER_LOAD(5, values + b * apart, 64);
    THRESHER_LOAD(6, values + b * apart + PAIRS, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 6);
  }
  THRESHER_STORE(0, context, width * 4);
  THRESHER_STORE(1, context + 16, width * 4);
}

static void run_heads(const Problem& p, int64_t sequence, int64_t head, int64_t end) {
  const int64_t start = p.starts[sequence], n = p.starts[sequence + 1] - start, dim = p.dim;
  if (dim % 32) return avx512::run_heads<bf16>(p, sequence, head, end);
  const Rows rows(p, sequence);
  const int64_t blocks = (n + 31) / 32, chunks = dim / 32, strips = (rows.count + TILE - 1) / TILE;
  const int64_t numbers = 2 * blocks * 32 * dim + strips * TILE * dim;
  const int64_t together = std::max<int64_t>(1, std::min(end - head, 2 * ROOM / std::max<int64_t>(1, numbers)));
  Scratch scratch;
  bf16* keys = scratch.take<bf16>(together * blocks * 32 * dim);    // [heads, panels, chunks] tiles
  bf16* values = scratch.take<bf16>(together * blocks * 32 * dim);  // [heads, blocks, 2 chunks] tiles
  bf16* queries = scratch.take<bf16>(together * strips * TILE * dim);  // [heads, strips, chunks] tiles
  Reach reach[TILE];
  float factor[TILE], vote[TILE];
  avx512::Strip s;
  s.dim = dim;
  s.width = dim;
  s.scale = p.scale;
  s.stride = blocks * 32 + 16;  // not a power of two, where rows would share few cache sets
  float* scores = scratch.take<float>(TILE * s.stride);
  s.bias = avx512::bias_of(p, start, n, blocks * 32, scratch);
  bf16* weights = scratch.take<bf16>(TILE * (s.stride + 16));
  const int64_t weights_stride = s.stride + 16;
  s.received = p.received ? scratch.take<float>(blocks * 32) : nullptr;
  s.context = p.context ? scratch.take<float>(TILE * dim) : nullptr;
  using avx512::soften;
  static void (*const softens[])(const avx512::Strip&, int64_t, int64_t) = {soften<1>, soften<2>, soften<3>,
                                                                            soften<4>, soften<5>, soften<6>};
  const auto from = [&](const void* base, const int64_t* stride, int64_t token, int64_t head) {
    return static_cast<const bf16*>(base) + token * stride[0] + head * stride[1];
  };
  THRESHER_STORED;
  _tile_loadconfig(&SHAPES);
  for (; head < end; head += together) {
    const int64_t count = std::min(together, end - head);
    for (int64_t v = 0; v < 2 * blocks; ++v)
      for (int64_t h = 0; h < count; ++h)
        for (int64_t c = 0; c < chunks; ++c)
          pack_keys(from(p.key, p.key_stride, start + 16 * v, head + h) + 32 * c, p.key_stride[0], n - 16 * v,
                    keys + ((h * 2 * blocks + v) * chunks + c) * PAIRS);
    for (int64_t j = 0; p.context && j < 32 * blocks; j += 2)
      for (int64_t h = 0; h < count; ++h)
        for (int64_t c = 0; c < chunks; ++c) {
          bf16* tiles = values + ((h * blocks + j / 32) * chunks + c) * 2 * PAIRS + j % 32 * 16;
          const bf16* row = from(p.value, p.value_stride, start + j, head + h) + 32 * c;
          if (j < n) {
            pack_values(row, j + 1 < n ? row + p.value_stride[0] : nullptr, tiles);
          } else {
            std::memset(tiles, 0, 64);
            std::memset(tiles + PAIRS, 0, 64);
          }
        }
    for (int64_t i = 0; i < strips * TILE; ++i)
      for (int64_t h = 0; h < count; ++h)
        for (int64_t c = 0; c < chunks; ++c) {
          bf16* to = queries + ((h * strips + i / TILE) * chunks + c) * PAIRS + i % TILE * 32;
          if (i < rows.count)
            std::memcpy(to, from(p.query, p.query_stride, rows[i], head + h) + 32 * c, 64);
          else
            std::memset(to, 0, 64);
        }
    THRESHER_STORED;
    for (int64_t h = 0; h < count; ++h) {
      if (s.received) std::memset(s.received, 0, blocks * 32 * sizeof(float));
      Window window(p, start, n);
      for (int64_t i = 0; i < rows.count; i += TILE) {
        const int64_t strip = std::min<int64_t>(TILE, rows.count - i);
        for (int64_t r = 0; r < strip; ++r) reach[r] = window.of(rows[i + r]);
        for (int64_t r = 0; p.log_weight && r < strip; ++r) vote[r] = std::exp(p.log_weight[rows[i + r]]);
        const int64_t first = reach[0].low / 32 * 32, last = (reach[strip - 1].high + 31) / 32 * 32;
        const bf16* query = queries + (h * strips + i / TILE) * chunks * PAIRS;
        int64_t j = first;
        for (; j + 64 <= last; j += 64)
          multiply_keys<4>(query, keys + (h * 2 * blocks + j / 16) * chunks * PAIRS, chunks, scores + j, s.stride);
        for (; j < last; j += 32)
          multiply_keys<2>(query, keys + (h * 2 * blocks + j / 16) * chunks * PAIRS, chunks, scores + j, s.stride);
        THRESHER_STORED;
        for (int64_t r = 0; r < strip;) {
          const int64_t some = std::min<int64_t>(6, strip - r);
          s.scores = scores + r * s.stride;
          s.reach = reach + r;
          s.factor = factor + r;
          s.vote = p.log_weight ? vote + r : nullptr;
          softens[some - 1](s, first, last);
          r += some;
        }
        if (!p.context) continue;
        for (int64_t r = 0; r < strip; ++r)
          for (j = first; j < last; j += 32) {
            const float* at = scores + r * s.stride + j;
            const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(at + 16), _mm512_loadu_ps(at));
            _mm512_storeu_si512(weights + r * weights_stride + j, reinterpret_cast<const __m512i&>(both));
          }
        THRESHER_STORED;
        for (int64_t c = 0; c < chunks; ++c)
          multiply_values(weights + first, weights_stride, (last - first) / 32,
                          values + ((h * blocks + first / 32) * chunks + c) * 2 * PAIRS, chunks * 2 * PAIRS,
                          s.context + 32 * c, dim);
        THRESHER_STORED;
        bf16* to = static_cast<bf16*>(p.context) + ((rows.first + i) * p.heads + head + h) * dim;
        for (int64_t r = 0; r < strip; ++r, to += p.heads * dim)
          for (int64_t d = 0; d < dim; d += 16) {
            const __m512 row = _mm512_mul_ps(_mm512_loadu_ps(s.context + r * dim + d), _mm512_set1_ps(factor[r]));
            const __m256bh half = _mm512_cvtneps_pbh(row);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + d), reinterpret_cast<const __m256i&>(half));
          }
      }
      if (s.received)
        std::memcpy(p.received + (head + h) * p.tokens + start, s.received, n * sizeof(float));
    }
  }
  _tile_release();
}
