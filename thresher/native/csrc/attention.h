// What attention is asked for, and which keys its queries reach.
#pragma once

#include <cstdint>

extern "C" struct Problem {  // as in native.py
  const void *query, *key, *value;  // [tokens, heads, dim]
  int64_t query_stride[2], key_stride[2], value_stride[2];  // from token to token, and from head to head
  const int32_t* starts;     // [batch + 1]
  const int64_t* positions;  // [tokens]; read where there is a window
  const float* log_weight;   // [tokens]: added to the scores of a key, and its exponential weighs a query; or null
  const int64_t* rows;       // tokens whose context is wanted, in order; null for all of them
  const int32_t* row_starts; // [batch + 1], of rows
  void* context;             // [rows, heads, dim], or null
  float* received;           // [heads, tokens]: attention received in every head, or null
  float* importance;         // [tokens]: the mean of it over heads
  int64_t batch, tokens, heads, dim;
  int64_t window;            // -1 for none
  float scale;
  int32_t bf16;              // 1 if numbers are bfloat16, 0 if they are float
};

namespace {

struct Reach {
  int64_t low, high;  // keys of the sequence from low on, up to and without high
};

// The tokens of a sequence whose context is wanted, as places in all of the batch.
struct Rows {
  Rows(const Problem& p, int64_t sequence)
      : chosen(p.rows),
        first((p.rows ? p.row_starts : p.starts)[sequence]),
        count((p.rows ? p.row_starts : p.starts)[sequence + 1] - first) {}
  int64_t operator[](int64_t i) const { return chosen ? chosen[first + i] : first + i; }
  const int64_t* chosen;
  int64_t first, count;
};

// Keys in reach of queries that are asked for in order.
class Window {
 public:
  Window(const Problem& p, int64_t start, int64_t n)
      : at_(p.positions), start_(start), n_(n), window_(p.window), reach_{0, p.window < 0 ? n : 0} {}
  Reach of(int64_t token) {
    if (window_ >= 0) {
      while (at_[start_ + reach_.low] < at_[token] - window_) ++reach_.low;
      while (reach_.high < n_ && at_[start_ + reach_.high] <= at_[token] + window_) ++reach_.high;
    }
    return reach_;
  }

 private:
  const int64_t* at_;
  int64_t start_, n_, window_;
  Reach reach_;
};

constexpr int64_t ROOM = 1 << 18;  // floats of packed heads that stay in a core's own cache

}  // namespace
