// Products of rows with the weights of a linear layer. Included by each_machine.h, after rows.h.
//
// A panel holds the weights of 16 outputs: for each group of inputs (four of int8, or two where each has 16 bits; two of
// bfloat16, or one float: 4 bytes) that of the first output, that of the second, and so on. Rows hold the same groups. A
// product is then, over groups, the sum of a row's group, broadcast, times vectors of groups. One order of this sum serves
// every row, so that a row's result does not depend on the rows beside it.

constexpr int PANEL = 16;               // outputs of a panel
constexpr int SINGLE = PANEL / W;       // vectors of a panel
constexpr int WIDE = W == 16 ? 4 : SINGLE;  // vectors that are multiplied at a time
#if defined(__aarch64__)
constexpr int HIGH = 6;                     // rows that are: so many that the sums fit in the registers
#else
constexpr int HIGH = W == 4 ? 4 : 6;
#endif
constexpr int64_t TILE_BYTES = HIGH * WIDE * 4 * W;  // of the sums
constexpr int64_t GROUP = 4;            // bytes

// Kinds of numbers: what sums they have, and how a product of groups is added to them.
struct Floats {
  using Sum = F;
  using Number = float;
  static inline void add(F& sum, I row, I weights) { sum += (F)row * (F)weights; }
};

#if defined(THRESHER_PAIRS)
struct Halves {
  using Sum = F;
  using Number = bf16;
  static inline void add(F& sum, I row, I weights) { add_pairs(sum, row, weights); }
};
#endif

#if THRESHER_WIDTH == 16 || (THRESHER_WIDTH == 8 && defined(THRESHER_BF16_AND_AMX))
// Bytes from 0, where 128 stands for 0, times signed ones.
struct Bytes128 {
  using Sum = I;
  using Number = int8_t;
  static constexpr int ZERO = 128;
  static inline void add(I& sum, I row, I weights) {
#if THRESHER_WIDTH == 16
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(row), "v"(weights));
#else
    asm(THRESHER_VEX "vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(row), "x"(weights));
#endif
  }
};

#endif

#if defined(__x86_64__) && THRESHER_WIDTH > 4
// Where four bytes have no product, or one that overflows: each in 16 bits.
struct InWords {
  using Sum = I;
  using Number = int16_t;
  static constexpr int ZERO = 0;
  static inline void add(I& sum, I row, I weights) {
#if THRESHER_WIDTH == 16
    sum += (I)_mm512_madd_epi16((__m512i)row, (__m512i)weights);
#else
    sum += (I)_mm256_madd_epi16((__m256i)row, (__m256i)weights);
#endif
  }
};
#elif defined(THRESHER_DOT)
struct SignedBytes {
  using Sum = I;
  using Number = int8_t;
  static constexpr int ZERO = 0;
  static inline void add(I& sum, I row, I weights) {
    asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(row), "w"(weights));
  }
};
#endif

template <class Kind>
constexpr bool IN_INT8 = std::is_same_v<typename Kind::Sum, I>;

// Groups of inputs of a linear layer. Zeros fill the last 64 bytes.
template <class Kind>
static int64_t groups_of(const Linear& linear) {
  constexpr int64_t NUMBERS = 64 / sizeof(typename Kind::Number);
  return (linear.inputs + NUMBERS - 1) / NUMBERS * PANEL;
}

// The sums of R rows, `stride` bytes apart, times V vectors of outputs. Panels are `apart` bytes apart.
template <class Kind, int R, int V>
static void multiply(const char* rows, int64_t stride, const char* panel, int64_t apart, int64_t groups,
                     const int32_t* from, char* sums) {
  typename Kind::Sum sum[R][V];
  THRESHER_UNROLL for (int v = 0; v < V; ++v)
    THRESHER_UNROLL for (int r = 0; r < R; ++r) {
      sum[r][v] = typename Kind::Sum{};
      if constexpr (IN_INT8<Kind>)
        if (Kind::ZERO) sum[r][v] = *reinterpret_cast<const AnyI*>(from + v * W);
    }
  for (int64_t g = 0; g < groups; ++g) {
    I weights[V];
    THRESHER_UNROLL for (int v = 0; v < V; ++v)
      weights[v] = *reinterpret_cast<const AnyI*>(panel + v / SINGLE * apart + g * 64 + v % SINGLE * 4 * W);
    THRESHER_UNROLL for (int r = 0; r < R; ++r) {
      const I row = repeated(rows + r * stride + g * GROUP);
      THRESHER_UNROLL for (int v = 0; v < V; ++v) Kind::add(sum[r][v], row, weights[v]);
    }
  }
  THRESHER_UNROLL for (int r = 0; r < R; ++r)
    THRESHER_UNROLL for (int v = 0; v < V; ++v)
      *reinterpret_cast<AnyI*>(sums + (r * WIDE + v) * 4 * W) = (I)sum[r][v];
}

using Multiply = void (*)(const char*, int64_t, const char*, int64_t, int64_t, const int32_t*, char*);

// By the number of rows.
template <class Kind, int V>
static Multiply multiply_of(int64_t rows) {
  static const Multiply all[] = {multiply<Kind, 1, V>, multiply<Kind, 2, V>, multiply<Kind, 3, V>, multiply<Kind, 4, V>,
                                 multiply<Kind, std::min(5, HIGH), V>, multiply<Kind, std::min(6, HIGH), V>};
  return all[rows - 1];
}

template <class Kind, int32_t ACTIVATION>
static inline F activated(F value) {
  switch (ACTIVATION) {
    case GELU:
#if THRESHER_WIDTH == 16
      if constexpr (!std::is_same_v<Kind, Floats>) return near_gelu(value);
#endif
      return gelu(value);
    case GELU_TANH: return value * sigmoid(value * (value * value * 0.0713548162f + 1.59576912f));
    case SILU: return value * sigmoid(value);
    case RELU: return larger(F{}, value);
    default: return value;
  }
}

// Calls `use` with the activation as a constant.
template <class Use>
static inline void with_activation(int32_t activation, const Use& use) {
  switch (activation) {
    case GELU: return use(std::integral_constant<int32_t, GELU>());
    case GELU_TANH: return use(std::integral_constant<int32_t, GELU_TANH>());
    case SILU: return use(std::integral_constant<int32_t, SILU>());
    case RELU: return use(std::integral_constant<int32_t, RELU>());
    default: return use(std::integral_constant<int32_t, IDENTITY>());
  }
}

// What V vectors of outputs make of their sums.
template <class Kind, int V>
struct Columns {
  Columns(const Linear& linear, int64_t output) {
    THRESHER_UNROLL for (int v = 0; v < V; ++v) {
      bias[v] = load(linear.bias + output + v * W);
      if constexpr (IN_INT8<Kind>) step[v] = load(linear.sizes + output + v * W);
    }
  }
  inline F number(const char* sums, int v, float size) const {
    const char* from = sums + v * 4 * W;
    if constexpr (IN_INT8<Kind>)
      return __builtin_convertvector(*reinterpret_cast<const AnyI*>(from), F) * size * step[v] + bias[v];
    else
      return load(reinterpret_cast<const float*>(from)) + bias[v];
  }
  F step[V], bias[V];
};

// What products become.
template <class T>
struct Outputs {
  T* to;               // the first row
  int64_t stride;      // from row to row
  const float* sizes;  // of the rows, in int8
  int32_t activation;
  bool adds;           // to what is there
  int64_t gate;        // from an output that is activated to the one that it is multiplied by; 0 for none

  // The sums of the rows [row, end) times V vectors from `output` on, and those of their gates.
  template <class Kind, int V>
  inline void take(const Linear& linear, const char* sums, int64_t row, int64_t end, int64_t output) const {
    const int64_t room = (gate ? gate : linear.outputs) - output;
    const Columns<Kind, V> columns(linear, output), gates(linear, output + gate);
    with_activation(activation, [&](auto kind) {
      for (int64_t r = row; r < end; ++r, sums += WIDE * 4 * W) {
        T* at = to + r * stride + output;
        const float size = IN_INT8<Kind> ? sizes[r] : 1.0f;
        THRESHER_UNROLL for (int v = 0; v < V; ++v) {
          F value = activated<Kind, decltype(kind)::value>(columns.number(sums, v, size));
          if (gate) value *= gates.number(sums + TILE_BYTES, v, size);
          put(at + v * W, value, room - v * W);
        }
      }
    });
  }

 private:
  inline void put(T* at, F value, int64_t room) const {
    if (room >= W) {
      write(at, adds ? value + read(at) : value);
    } else if (room > 0) {
      T some[W] = {};
      std::memcpy(some, at, room * sizeof(T));
      write(some, adds ? value + read(some) : value);
      std::memcpy(at, some, room * sizeof(T));
    }
  }
};

// `count` rows times the outputs [output, end).
template <class Kind, class T>
static void product(const Linear& linear, const char* rows, int64_t stride, int64_t count, int64_t output, int64_t end,
                    const Outputs<T>& outputs) {
  alignas(64) char sums[2 * TILE_BYTES];
  const int64_t groups = groups_of<Kind>(linear), apart = groups * 64;
  const auto multiply_by = [&](Multiply run, int64_t row, int64_t from, char* to) {
    run(rows + row * stride, stride, static_cast<const char*>(linear.weights) + from / PANEL * apart, apart, groups,
        IN_INT8<Kind> ? linear.start + from : nullptr, to);
  };
  const auto columns = [&](auto count_of) {
    constexpr int V = decltype(count_of)::value;
    for (int64_t r = 0, some; r < count; r += some) {
      some = std::min<int64_t>(HIGH, count - r);
      multiply_by(multiply_of<Kind, V>(some), r, output, sums);
      if (outputs.gate) multiply_by(multiply_of<Kind, V>(some), r, output + outputs.gate, sums + TILE_BYTES);
      outputs.template take<Kind, V>(linear, sums, r, r + some, output);
    }
    output += V * W;
  };
  while (output < end)
    end - output >= WIDE * W ? columns(std::integral_constant<int, WIDE>()) : columns(std::integral_constant<int, SINGLE>());
}

// A row as a product reads it, filled up with zeros.
template <class Kind, class T>
static inline void prepare(const T* from, int64_t width, int64_t groups, char* to, float* size) {
  using Number = typename Kind::Number;
  Number* made = reinterpret_cast<Number*>(to);
  if constexpr (IN_INT8<Kind>)
    quantise_row(from, width, made, size, Kind::ZERO);
  else
    along(from, made, width, [](int64_t, const T* some, Number* at) { write(at, read(some)); });
  std::memset(made + width, 0, groups * GROUP - width * sizeof(Number));
}
