// What relative positions add to the scores of a head. Included by attention_strip.h.

typedef uint8_t Bytes __attribute__((vector_size(W)));
typedef Bytes AnyBytes __attribute__((aligned(1), may_alias));
constexpr int64_t SMALL = 32;  // numbers of a head that two registers hold

// Tokens of a sequence that has lost none differ as their places do: a row of numbers then lies in one line. Where some
// are gone, every pair has a byte that says which number is its own, which heads share; or the line is read in leaps.
struct Relative {
  Relative(const Problem& p, int64_t start, int64_t n, int64_t panelled, const Rows& rows, Scratch& scratch)
      : p(p),
        at(p.table ? p.positions + start : nullptr),
        start(start),
        far(p.table && n ? at[n - 1] - at[0] : 0),
        panelled(panelled) {
    if (!p.table || !n) return;
    if (W == 16 && p.numbers <= SMALL && far >= n) {
      bytes = scratch.take<uint8_t>(rows.count * panelled);
      for (int64_t i = 0; i < rows.count; ++i) spread(rows[i] - start, n, bytes + i * panelled);
      return;
    }
    line = scratch.take<float>(2 * far + 1 + 2 * W);
    if (far < n) return;
    places = scratch.take<int32_t>(panelled);
    for (int64_t j = 0; j < panelled; ++j) places[j] = static_cast<int32_t>(at[std::min(j, n - 1)] - at[0]);
  }
  // The head whose numbers are wanted, as they are added before the scale.
  void begin(int64_t head) {
    if (!bytes && !line) return;  // of an empty sequence
    const float* numbers = p.table + head * p.numbers;
    if (bytes) {
      float some[2 * W] = {};
      for (int64_t i = 0; i < p.numbers; ++i) some[i] = numbers[i] / p.scale;
      low = load(some), high = load(some + W);
      return;
    }
    const int32_t* entry = p.entries + p.reach - far;
    for (int64_t i = 0; i < 2 * far + 1 + 2 * W; ++i) line[i] = i <= 2 * far ? numbers[entry[i]] / p.scale : 0.0f;
  }
  // The row of the strip that belongs to a token, the i-th of those whose context is wanted.
  void look(int64_t row, int64_t i, int64_t token) {
    if (bytes)
      byte[row] = bytes + i * panelled;
    else
      from[row] = line + far - (at[token - start] - at[0]);
  }
  // Calls add(numbers), which gets the vector of a row's numbers for the W keys from j on by numbers(row, j).
  template <class Add>
  void each(const Add& add) const {
#if THRESHER_WIDTH == 16
    if (bytes)
      return add([&](int64_t row, int64_t j) {
        const I which = __builtin_convertvector(*reinterpret_cast<const AnyBytes*>(byte[row] + j), I);
        return (F)_mm512_permutex2var_ps((__m512)low, (__m512i)which, (__m512)high);
      });
#endif
    if (places)
      return add([&](int64_t row, int64_t j) {
        F some;
        for (int k = 0; k < W; ++k) some[k] = from[row][places[j + k]];
        return some;
      });
    add([&](int64_t row, int64_t j) { return load(from[row] + j); });
  }

  const Problem& p;
  const int64_t* at;    // positions of the sequence's tokens
  int64_t start, far;   // far: from the first token to the last
  int64_t panelled;
  float* line = nullptr;  // [2 far + 1], and room for whole vectors: by the key's position less the query's
  int32_t* places = nullptr;  // [keys]: positions from the first token's on, where some between are gone
  uint8_t* bytes = nullptr;   // [rows, keys]: of small tables, likewise
  F low, high;                // of these tables: the numbers
  const float* from[16];      // of the strip's rows
  const uint8_t* byte[16];

 private:
  // Which number belongs to each key of a query: a run of neighbours is a run of entries.
  void spread(int64_t query, int64_t n, uint8_t* to) const {
    for (int64_t j = 0; j < panelled; ++j)
      to[j] = j < n ? static_cast<uint8_t>(p.entries[at[j] - at[query] + p.reach]) : 0;
  }
};
