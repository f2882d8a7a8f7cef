// Linear layers, stages and attention against sums in double, with all instructions that the machine has: what `make
// emulate` runs for processors that are not at hand. Tests in Python do the same, and more, on those that are.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "../thresher/native/csrc/interface.h"

namespace {

typedef uint16_t bf16;
typedef std::vector<double> Matrix;

std::mt19937 bits(1);
int64_t under(int64_t end) { return static_cast<int64_t>(bits() % end); }
float drawn() { return std::normal_distribution<float>()(bits); }

bf16 half_of(float value) {
  uint32_t whole;
  std::memcpy(&whole, &value, 4);
  return (whole + 0x7fff + (whole >> 16 & 1)) >> 16;
}
float float_of(bf16 value) {
  const uint32_t whole = static_cast<uint32_t>(value) << 16;
  float made;
  std::memcpy(&made, &whole, 4);
  return made;
}

// Random numbers as the native code takes them, and as they are.
struct Numbers {
  Numbers(int64_t count, bool half) : half(half), exact(count), floats(half ? 0 : count), halves(half ? count : 0) {
    for (int64_t i = 0; i < count; ++i) {
      const float value = drawn();
      set(i, half ? float_of(half_of(value)) : value);
    }
  }
  void* get() { return half ? static_cast<void*>(halves.data()) : floats.data(); }
  void set(int64_t i, float value) {
    exact[i] = value;
    half ? void(halves[i] = half_of(value)) : void(floats[i] = value);
  }
  double at(int64_t i) const { return half ? float_of(halves[i]) : floats[i]; }
  bool half;
  Matrix exact;
  std::vector<float> floats;
  std::vector<bf16> halves;
};

void near(double found, double expected, double close, const char* what) {
  if (std::fabs(found - expected) <= close * (1 + std::fabs(expected))) return;
  std::printf("%s: %.8g instead of %.8g\n", what, found, expected);
  std::exit(1);
}

// A linear layer in a precision: its weights in panels, as interface.h says, and as they are.
struct Weights {
  Weights(int64_t inputs, int64_t outputs, int32_t precision)
      : inputs(inputs),
        outputs(outputs),
        precision(precision),
        exact(inputs * outputs),
        bias(padded()),
        sizes(padded()),
        start(padded()) {
    const bool words = precision == INT8 && thresher_has(INT8) & IN_WORDS;
    const int64_t bytes = precision == FLOAT ? 4 : precision == BFLOAT16 || words ? 2 : 1, group = 4 / bytes;
    const int64_t filled = (inputs * bytes + 63) / 64 * 64 / bytes;
    panels.resize(padded() * filled * bytes);
    for (int64_t o = 0; o < outputs; ++o) {
      bias[o] = drawn(), sizes[o] = precision == INT8 ? 0.001f * static_cast<float>(1 + under(9)) : 1;
      for (int64_t i = 0; i < inputs; ++i) {
        const int64_t place = (o / 16 * filled / group + i / group) * 16 * group + o % 16 * group + i % group;
        exact[o * inputs + i] = sizes[o] * put(place, words);
        if (precision == INT8) start[o] -= static_cast<int32_t>(std::lround(128 * exact[o * inputs + i] / sizes[o]));
      }
    }
  }
  double put(int64_t place, bool words) {
    const float value = drawn() / std::sqrt(static_cast<float>(inputs));
    const auto whole = static_cast<int8_t>(under(255) - 127);
    if (precision == FLOAT) return reinterpret_cast<float*>(panels.data())[place] = value;
    if (precision == BFLOAT16) return float_of(reinterpret_cast<bf16*>(panels.data())[place] = half_of(value));
    if (words) return reinterpret_cast<int16_t*>(panels.data())[place] = whole;
    return reinterpret_cast<int8_t*>(panels.data())[place] = whole;
  }
  int64_t padded() const { return (outputs + 31) / 32 * 32; }
  Linear record() const { return {panels.data(), sizes.data(), start.data(), bias.data(), inputs, outputs}; }

  // What it makes of a row: rounded as the precision rounds it, and summed in double.
  Matrix of(const double* row) const {
    Matrix given(row, row + inputs), made(outputs);
    double most = 0;
    for (double x : given) most = std::max(most, std::fabs(x));
    for (double& x : given) {
      if (precision == BFLOAT16) x = float_of(half_of(static_cast<float>(x)));
      if (precision == INT8) x = most > 0 ? std::nearbyint(x * 127 / most) * most / 127 : 0;
    }
    for (int64_t o = 0; o < outputs; ++o) {
      made[o] = bias[o];
      for (int64_t i = 0; i < inputs; ++i) made[o] += given[i] * exact[o * inputs + i];
    }
    return made;
  }
  int64_t inputs, outputs;
  int32_t precision;
  Matrix exact;
  std::vector<float> bias, sizes;
  std::vector<int32_t> start;
  std::vector<char> panels;
};

double gelu(double x) { return x * std::erfc(-x * std::sqrt(0.5)) / 2; }

void linear(int32_t precision, bool half) {
  const int64_t rows = 1 + under(40), inputs = 1 + under(150), outputs = 1 + under(150);
  const Weights weights(inputs, outputs, precision);
  Numbers source(rows * inputs, half), target(rows * outputs, half);
  // int8 rounds none of these: a number between two steps could go to either.
  for (int64_t i = 0; precision == INT8 && i < rows * inputs; ++i)
    source.set(i, i % inputs ? static_cast<float>(under(255) - 127) / 32 : 127.0f / 32);
  LinearWork work = {weights.record(),           source.get(), target.get(), rows, inputs,
                     under(2) ? GELU : IDENTITY, precision,    half};
  if (thresher_linear(&work, 2, nullptr)) std::exit(1);
  for (int64_t r = 0; r < rows; ++r) {
    const Matrix expected = weights.of(source.exact.data() + r * inputs);
    for (int64_t o = 0; o < outputs; ++o)
      near(target.at(r * outputs + o), work.activation == GELU ? gelu(expected[o]) : expected[o], half ? 8e-3 : 3e-4,
           "linear");
  }
}

// Its products are those of linear layers: one row shows that they follow each other as they should.
void stage(int32_t precision, bool half) {
  const int64_t rows = 1 + under(30), dim = 16 * (1 + under(5)), inner = 16 * (1 + under(8));
  const Weights output(dim, dim, precision), up(dim, inner, precision), down(inner, dim, precision),
      next(dim, 3 * dim, precision);
  const std::vector<float> ones(dim, 1.0f), zeros(dim, 0.0f);
  const Norm norm = {ones.data(), zeros.data(), 1e-5f, 1};
  Stage s = {output.record(),
             up.record(),
             down.record(),
             next.record(),
             norm,
             norm,
             dim,
             0,
             0,
             GELU,
             precision,
             nullptr,
             0,
             0};
  Numbers hidden(rows * dim, half), context(rows * dim, half), target(rows * dim, half), heads(rows * 3 * dim, half);
  StageWork work = {&s,  hidden.get(), nullptr, context.get(), target.get(), heads.get(), nullptr, rows,
                    dim, dim,          1,       half};
  if (thresher_stage(&work, 2, nullptr)) std::exit(1);
  const auto normed = [&](Matrix row) {
    double mean = 0, square = 0;
    for (double x : row) mean += x / dim;
    for (double x : row) square += (x - mean) * (x - mean) / dim;
    for (double& x : row) x = (x - mean) / std::sqrt(square + 1e-5);
    return row;
  };
  const auto sum = [](Matrix a, const double* b) {
    for (double& x : a) x += *b++;
    return a;
  };
  double missed = 0, size = 0;
  const auto see = [&](double found, double expected) {
    missed += std::fabs(found - expected);
    size += std::fabs(expected);
  };
  for (int64_t r = 0; r < rows; ++r) {
    const Matrix first = normed(sum(output.of(context.exact.data() + r * dim), hidden.exact.data() + r * dim));
    Matrix wide = up.of(first.data());
    for (double& x : wide) x = gelu(x);
    const Matrix state = normed(sum(down.of(wide.data()), first.data())), made = next.of(state.data());
    for (int64_t i = 0; i < dim; ++i) see(target.at(r * dim + i), state[i]);
    for (int64_t i = 0; i < 3 * dim; ++i) see(heads.at(r * 3 * dim + i), made[i]);
  }
  // A number that lies between two steps of int8 may be rounded to either.
  near(missed / size, 0, precision == FLOAT ? 1e-5 : 1e-2, "stage");
}

// The second half of the problems has gaps in the positions, and numbers for their differences.
void attention(bool half, bool biased) {
  const int64_t n = 1 + under(70), heads = 1 + under(3), dim = 8 * (1 + under(9)), apart = heads * dim;
  Numbers query(n * apart, half), key(n * apart, half), value(n * apart, half), context(n * apart, half);
  std::vector<float> received(heads * n), importance(n);
  const std::vector<int32_t> starts = {0, static_cast<int32_t>(n)};
  Problem p = {};
  p.query = query.get(), p.key = key.get(), p.value = value.get(), p.context = context.get();
  for (int64_t* stride : {p.query_stride, p.key_stride, p.value_stride}) stride[0] = apart, stride[1] = dim;
  p.starts = starts.data(), p.received = received.data(), p.importance = importance.data();
  std::vector<int64_t> positions(n);
  for (int64_t i = 1; i < n; ++i) positions[i] = positions[i - 1] + 1 + (under(3) ? 0 : under(12));
  const int64_t reach = positions[n - 1], numbers = 1 + under(40);
  std::vector<float> table(heads * numbers);
  std::vector<int32_t> entries(2 * reach + 1);
  for (float& x : table) x = drawn();
  for (int32_t& x : entries) x = static_cast<int32_t>(under(numbers));
  if (biased) p.positions = positions.data(), p.table = table.data(), p.entries = entries.data();
  p.numbers = numbers, p.reach = reach;
  p.batch = 1, p.tokens = n, p.heads = heads, p.dim = dim, p.groups = 1, p.window = -1, p.scale = 0.2f, p.bf16 = half;
  if (thresher_attend(&p, 2, nullptr)) std::exit(1);
  Matrix votes(n);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t h = 0; h < heads; ++h) {
      Matrix weight(n), row(dim);
      double total = 0;
      for (int64_t j = 0; j < n; ++j) {
        for (int64_t d = 0; d < dim; ++d)
          weight[j] += query.exact[i * apart + h * dim + d] * key.exact[j * apart + h * dim + d];
        const double added = biased ? table[h * numbers + entries[reach + positions[j] - positions[i]]] : 0;
        total += weight[j] = std::exp(weight[j] * p.scale + added);
      }
      for (int64_t j = 0; j < n; ++j) {
        votes[j] += weight[j] / total / heads;
        for (int64_t d = 0; d < dim; ++d) row[d] += weight[j] / total * value.exact[j * apart + h * dim + d];
      }
      for (int64_t d = 0; d < dim; ++d)
        near(context.at(i * apart + h * dim + d), row[d], half ? 1e-2 : 1e-5, "context");
    }
  for (int64_t j = 0; j < n; ++j) near(importance[j], votes[j], 2e-5, "importance");
}

}  // namespace

int main() {
  int found = 0;
  for (const char* name :
       {"portable", "avx2", "avx-vnni", "avx512", "avx512-vnni", "avx512-bf16", "amx", "neon-dot", "neon-bf16"}) {
    if (!thresher_use(name)) continue;
    bits.seed(1);
    std::printf("%s:", name);
    ++found;
    for (int32_t precision : {FLOAT, BFLOAT16, INT8})
      for (const bool half : {false, true}) {
        if (!thresher_has(precision) || (precision != INT8 && half != (precision == BFLOAT16))) continue;
        for (int i = 0; i < 60; ++i) linear(precision, half);
        for (int i = 0; thresher_has(precision) & STAGES && i < 20; ++i) stage(precision, half);
        std::printf(" %s%s",
                    precision == FLOAT      ? "fp32"
                    : precision == BFLOAT16 ? "bf16"
                                            : "int8",
                    half ? " on bf16" : "");
      }
    for (int i = 0; i < 120; ++i) attention(i % 2, i >= 60);
    std::printf(" attention\n");
  }
  return found ? 0 : 1;
}
