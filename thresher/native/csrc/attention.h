// Which rows of context a problem wants, and which keys its queries reach.
#pragma once

#include <cmath>

#include "interface.h"

namespace {

struct Reach {
  int64_t low, high;  // the keys [low, high) of the sequence
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

// The keys that queries reach. Ask for the queries in order.
class Window {
 public:
  Window(const Problem& p, int64_t start, int64_t n)
      : at_(p.positions), start_(start), n_(n), window_(p.window), reach_{0, p.window < 0 ? n : 0} {}
  Reach of(int64_t token) {
    if (window_ >= 0) {
      while (at_[token] - at_[start_ + reach_.low] > window_) ++reach_.low;
      while (reach_.high < n_ && at_[start_ + reach_.high] - at_[token] <= window_) ++reach_.high;
    }
    return reach_;
  }

 private:
  const int64_t* at_;
  int64_t start_, n_, window_;
  Reach reach_;
};

// The reach of `count` queries from the i-th row on, and the weight of their votes in the importance.
inline void look(const Problem& p, const Rows& rows, int64_t i, int64_t count, Window& window, Reach* reach, float* vote) {
  for (int64_t r = 0; r < count; ++r) reach[r] = window.of(rows[i + r]);
  for (int64_t r = 0; p.log_weight && r < count; ++r) vote[r] = std::exp(p.log_weight[rows[i + r]]);
}

// The numbers of one head of a token.
template <class T>
const T* numbers_of(const void* base, const int64_t* stride, int64_t token, int64_t head) {
  return static_cast<const T*>(base) + token * stride[0] + head * stride[1];
}

constexpr int64_t ROOM = 1 << 18;  // floats of packed heads that stay in a core's own cache

}  // namespace
