// Vectors of float32, one register each. GCC and Clang vector extensions leave the choice of instructions to the compiler.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int64_t LANES = 16;
#else
constexpr int64_t LANES = 8;
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Integers __attribute__((vector_size(LANES * sizeof(float))));
#define INLINE inline __attribute__((always_inline))

INLINE Vector load(const float* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
INLINE void store(float* to, Vector value) { std::memcpy(to, &value, sizeof value); }
INLINE Vector splat(float x) { return x - Vector{}; }

// EACH(N) body END repeats the body for k = 0, ..., N - 1, unrolled: the processor looks some hundred instructions ahead, so what
// does not wait for one another has to stand side by side.
template <int... K, class Body>
INLINE void each(std::integer_sequence<int, K...>, const Body& body) {
  (body(K), ...);
}
#define EACH(N) each(std::make_integer_sequence<int, N>(), [&](int k) __attribute__((always_inline)) {
#define END });
