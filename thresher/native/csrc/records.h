// How a record lies in memory, listed below its struct. thresher_records() tells the caller, who compares the list
// with its own records when it opens the library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

struct Field {
  const char *name, *kind;
  size_t offset, size;
};

// The name and the fields of a struct: THRESHER_RECORD specialises it.
template <class Struct>
struct Described;

// The kind of a field, by a pointer to its type.
constexpr const char* kind(const int32_t*) { return "int32"; }
constexpr const char* kind(const int64_t*) { return "int64"; }
constexpr const char* kind(const float*) { return "float"; }
constexpr const char* kind(int64_t (*)[2]) { return "int64[2]"; }
constexpr const char* kind(const int32_t* const*) { return "int32*"; }
constexpr const char* kind(const int64_t* const*) { return "int64*"; }
constexpr const char* kind(const float* const*) { return "float*"; }
constexpr const char* kind(const void* const*) { return "void*"; }
template <class Struct, class = std::enable_if_t<std::is_class_v<Struct>>>
constexpr const char* kind(Struct*) {
  return Described<Struct>::name;
}
template <class Struct, class = std::enable_if_t<std::is_class_v<Struct>>>
constexpr const char* kind(const Struct* const*) {
  return "void*";
}
template <class Struct>
constexpr const char* kind(const Struct* const* const*) {
  return "void*";
}

// True if the listed fields follow each other without a gap and fill the struct: then the list leaves none out.
template <size_t N>
constexpr bool covers(const Field (&fields)[N], size_t size) {
  size_t end = 0;
  for (const Field& field : fields) {
    if (field.offset != end) return false;
    end += field.size;
  }
  return end == size;
}

#define FIELD(name) {#name, kind(static_cast<decltype(Self::name)*>(nullptr)), offsetof(Self, name), sizeof(Self::name)}
#define THRESHER_RECORD(STRUCT, ...)                               \
  template <>                                                      \
  struct Described<STRUCT> {                                       \
    using Self = STRUCT;                                           \
    static constexpr const char* name = #STRUCT;                   \
    static constexpr Field fields[] = {__VA_ARGS__};               \
  };                                                               \
  static_assert(covers(Described<STRUCT>::fields, sizeof(STRUCT)), \
                #STRUCT ": list every field in order, and leave no gap between them")
