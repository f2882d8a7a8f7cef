// Work shared by threads, and memory for each of them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>

#include <cstring>
#endif

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

// Runs `labour(shared)` on a number of threads: GOMP_parallel of the OpenMP that torch has loaded, so that
// there is no second team to fight over the cores.
typedef void (*Team)(void (*labour)(void*), void* shared, unsigned threads, unsigned flags);

// While it lives, numbers below 2^-126 are zero for the calling thread. Attention makes many such numbers from keys
// that are out of reach or nearly dead, and each would take a processor a hundred times as long.
class NoDenormals {
#if defined(__x86_64__)
 public:
  NoDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~NoDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#endif
};

// Call piece(i) for every i below `pieces`; each thread takes the next piece that is left. False if one threw.
template <class Piece>
bool share_out(int64_t pieces, int32_t threads, Team team, const Piece& piece) {
  struct Shared {
    const Piece& piece;
    int64_t pieces;
    std::atomic<int64_t> next;
    std::atomic<bool> failed;
  } shared{piece, pieces, {0}, {false}};
  const auto labour = [](void* from) {
    Shared& shared = *static_cast<Shared*>(from);
    [[maybe_unused]] const NoDenormals guard;
    try {  // no exception may pass through C or through another library's team
      for (int64_t i; (i = shared.next.fetch_add(1, std::memory_order_relaxed)) < shared.pieces;) shared.piece(i);
    } catch (...) {
      shared.failed = true;
    }
  };
  if (threads <= 1 || pieces <= 1) {
    labour(&shared);
  } else if (team) {
    team(labour, &shared, threads, 0);
  } else {
    std::vector<std::thread> others;
    try {
      for (int32_t i = 1; i < threads; ++i) others.emplace_back(labour, &shared);
    } catch (...) {  // no further thread is available: those that started do the work
    }
    labour(&shared);
    for (std::thread& other : others) other.join();
  }
  return !shared.failed;
}

// Memory of the calling thread, which keeps it for its next piece of work. A thread has one of a kind at a time.
template <bool LARGE>
class Memory {
 public:
  // Of what is large, a call that needs little gives back what the largest call before it took.
  ~Memory() {
    if (!LARGE) return;
    for (size_t i = 0; i < blocks().size(); ++i)
      if (Block& block = blocks()[i]; block.bytes > KEPT && (i >= used_ || block.asked < block.bytes / 4)) block = {};
  }
  template <class T>
  T* take(int64_t count) {
    const size_t bytes = (std::max<int64_t>(1, count) * sizeof(T) + 63) / 64 * 64;
    if (used_ == blocks().size()) blocks().push_back({});
    Block& block = blocks()[used_++];
    block.asked = bytes;
    if (block.bytes < bytes) {
      block.bytes = 0;
      block.memory.reset();
      block.memory.reset(new char[bytes + 64]);
      block.bytes = bytes;
    }
    const auto address = (reinterpret_cast<uintptr_t>(block.memory.get()) + 63) / 64 * 64;
    T* taken = reinterpret_cast<T*>(address);
#if defined(__SANITIZE_ADDRESS__)  // report reads before writes (NaN), and reads after the end
    ASAN_UNPOISON_MEMORY_REGION(block.memory.get(), block.bytes + 64);
    std::memset(block.memory.get(), 0xff, block.bytes + 64);
    ASAN_POISON_MEMORY_REGION(taken + count, block.memory.get() + block.bytes + 64 - reinterpret_cast<char*>(taken + count));
#endif
    return taken;
  }

 private:
  static constexpr size_t KEPT = 1 << 20;
  struct Block {
    std::unique_ptr<char[]> memory;
    size_t bytes = 0, asked = 0;
  };
  static std::vector<Block>& blocks() {
    static thread_local std::vector<Block> blocks;
    return blocks;
  }
  size_t used_ = 0;
};

using Scratch = Memory<false>;  // of a piece of work
using Whole = Memory<true>;     // of a call
