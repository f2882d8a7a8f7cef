// Heads of one sequence in bfloat16, by products of pairs of numbers. Softmax and column sums are those of
// attention_strip.h, in fp32. Included after the products: STRIP, multiply_keys, multiply_values and Unit.
//
// The left side of a product holds rows of 32 numbers. The right side is a tile of pairs: each of its rows belongs to a
// pair of dims and holds these two numbers of 16 keys, or it belongs to a pair of keys and holds those of 16 dims.

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

// 32 dims of 16 keys as one tile of pairs of dims. Only `count` keys exist: zeros stand for the rest.
static inline void pack_keys(const bf16* key, int64_t stride, int64_t count, bf16* tile) {
  __m512i row[16];
  for (int i = 0; i < 16; ++i) row[i] = i < count ? _mm512_loadu_si512(key + i * stride) : _mm512_setzero_si512();
  transpose(row);
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + 32 * i, row[i]);
}

// 32 dims of the values of two keys, the second of which may be missing, as one row of two tiles of pairs of keys.
static inline void pack_values(const bf16* value, const bf16* next, bf16* tiles) {
  const __m512i a = _mm512_loadu_si512(value), b = next ? _mm512_loadu_si512(next) : _mm512_setzero_si512();
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                       36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  _mm512_store_si512(tiles, _mm512_permutex2var_epi16(a, low, b));
  _mm512_store_si512(tiles + PAIRS, _mm512_permutex2var_epi16(a, high, b));
}

// Some heads of a sequence as tiles.
struct Tiles {
  int64_t blocks, chunks, strips;  // numbers of blocks of 32 keys, chunks of 32 dims, and strips of queries
  bf16* keys;                      // [heads, 2 blocks, chunks]
  bf16* values;                    // [heads, blocks, 2 chunks]
  bf16* queries;                   // [heads, strips, chunks]
};

// Make the tiles of `count` heads, from `head` on, of the sequence that begins at `start` and has n tokens.
static void pack(const Problem& p, const Rows& rows, int64_t start, int64_t n, int64_t head, int64_t count,
                 const Tiles& t) {
  const int64_t chunks = t.chunks;
  for (int64_t v = 0; v < 2 * t.blocks; ++v)
    for (int64_t h = 0; h < count; ++h)
      for (int64_t c = 0; c < chunks; ++c)
        pack_keys(numbers_of<bf16>(p.key, p.key_stride, start + 16 * v, (head + h) / p.groups) + 32 * c,
                  p.key_stride[0], n - 16 * v, t.keys + ((h * 2 * t.blocks + v) * chunks + c) * PAIRS);
  for (int64_t j = 0; p.context && j < 32 * t.blocks; j += 2)
    for (int64_t h = 0; h < count; ++h)
      for (int64_t c = 0; c < chunks; ++c) {
        bf16* tiles = t.values + ((h * t.blocks + j / 32) * chunks + c) * 2 * PAIRS + j % 32 * 16;
        const bf16* row = numbers_of<bf16>(p.value, p.value_stride, start + j, (head + h) / p.groups) + 32 * c;
        if (j < n) {
          pack_values(row, j + 1 < n ? row + p.value_stride[0] : nullptr, tiles);
        } else {
          std::memset(tiles, 0, 64);
          std::memset(tiles + PAIRS, 0, 64);
        }
      }
  for (int64_t i = 0; i < t.strips * STRIP; ++i)
    for (int64_t h = 0; h < count; ++h)
      for (int64_t c = 0; c < chunks; ++c) {
        bf16* to = t.queries + (((h * t.strips + i / STRIP) * chunks + c) * STRIP + i % STRIP) * 32;
        if (i < rows.count)
          std::memcpy(to, numbers_of<bf16>(p.query, p.query_stride, rows[i], head + h) + 32 * c, 64);
        else
          std::memset(to, 0, 64);
      }
}

// The scores, after softmax, of the strip of queries that begins at the i-th row, against the keys [first, last).
static void soften_strip(Strip s, const Tiles& t, int64_t h, int64_t i, int64_t count, int64_t first, int64_t last) {
  static void (*const softens[])(const Strip&, int64_t, int64_t) = {soften<1, true>, soften<2, true>, soften<3, true>,
                                                                    soften<4, true>, soften<5, true>, soften<6, true>};
  const bf16* query = t.queries + (h * t.strips + i / STRIP) * t.chunks * STRIP * 32;
  const bf16* keys = t.keys + h * 2 * t.blocks * t.chunks * PAIRS;
  multiply_keys(query, keys, t.chunks, count, first, last, s.scores, s.stride);
  for (int64_t some; count; count -= some) {
    some = std::min<int64_t>(6, count);
    softens[some - 1](s, first, last);
    s.scores += some * s.stride;
    s.halves += some * (s.stride + W);
    s.reach += some;
    s.factor += some;
    s.row += some;
    if (s.vote) s.vote += some;
  }
}

// The context rows of a strip, from its scores after softmax. Rows of `to` are `apart` numbers apart.
static void sum_values(const Strip& s, const Tiles& t, int64_t h, int64_t count, int64_t first, int64_t last,
                       bf16* to, int64_t apart) {
  multiply_values(s.halves + first, s.stride + W, count, (last - first) / 32,
                  t.values + (h * t.blocks + first / 32) * t.chunks * 2 * PAIRS, t.chunks, s.context);
  for (int64_t r = 0; r < count; ++r, to += apart)
    for (int64_t d = 0; d < s.dim; d += W) write(to + d, load(s.context + r * s.dim + d) * s.factor[r]);
}

static void run_heads(const Problem& p, int64_t sequence, int64_t head, int64_t end) {
  const int64_t start = p.starts[sequence], n = p.starts[sequence + 1] - start, dim = p.dim;
  if (dim % 32) return avx512_bf16::run_heads<bf16>(p, sequence, head, end);
  const Rows rows(p, sequence);
  Tiles t;
  t.blocks = (n + 31) / 32, t.chunks = dim / 32, t.strips = (rows.count + STRIP - 1) / STRIP;
  const int64_t keys = t.blocks * 32, numbers = 2 * keys * dim + t.strips * STRIP * dim;
  const int64_t together = std::max<int64_t>(1, std::min(end - head, 2 * ROOM / std::max<int64_t>(1, numbers)));
  Scratch scratch;
  t.keys = scratch.take<bf16>(together * keys * dim);
  t.values = scratch.take<bf16>(together * keys * dim);
  t.queries = scratch.take<bf16>(together * t.strips * STRIP * dim);
  Reach reach[STRIP];
  float factor[STRIP], vote[STRIP];
  Dropout dropout(p);
  Strip s;
  s.dim = dim;
  s.width = dim;
  s.scale = p.scale;
  s.reach = reach;
  s.factor = factor;
  s.vote = p.log_weight ? vote : nullptr;
  s.dropout = p.dropout > 0 ? &dropout : nullptr;
  s.stride = keys + 16;  // not a power of two, where rows would share few cache sets
  s.scores = scratch.take<float>(STRIP * s.stride);
  s.bias = bias_of(p, start, n, keys, scratch);
  Relative relative(p, start, n, keys, scratch);
  s.relative = p.table ? &relative : nullptr;
  s.row = 0;
  s.halves = scratch.take<bf16>(STRIP * (s.stride + W));
  s.received = p.received ? scratch.take<float>(keys) : nullptr;
  s.context = p.context ? scratch.take<float>(STRIP * dim) : nullptr;
  [[maybe_unused]] const Unit unit;
  for (; head < end; head += together) {
    const int64_t count = std::min(together, end - head);
    pack(p, rows, start, n, head, count, t);
    for (int64_t h = 0; h < count; ++h) {
      if (s.received) std::memset(s.received, 0, keys * sizeof(float));
      if (s.relative) relative.begin(head + h);
      Window window(p, start, n);
      for (int64_t i = 0; i < rows.count; i += STRIP) {
        const int64_t strip = std::min<int64_t>(STRIP, rows.count - i);
        look(p, rows, i, strip, window, reach, vote);
        for (int64_t r = 0; s.dropout && r < strip; ++r) dropout.look(r, head + h, rows[i + r]);
        for (int64_t r = 0; s.relative && r < strip; ++r) relative.look(r, rows[i + r]);
        const int64_t first = reach[0].low / 32 * 32, last = (reach[strip - 1].high + 31) / 32 * 32;
        soften_strip(s, t, h, i, strip, first, last);
        if (!p.context) continue;
        drop(s, strip, first, last, s.halves, s.stride + W);
        bf16* to = static_cast<bf16*>(p.context) + ((rows.first + i) * p.heads + head + h) * dim;
        sum_values(s, t, h, strip, first, last, to, p.heads * dim);
      }
      if (s.received)
        std::memcpy(p.received + (head + h) * p.tokens + start, s.received, n * sizeof(float));
    }
  }
}
