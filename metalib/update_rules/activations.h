// Functions of vectors that the LSTM needs, to a few units in the last place and without -ffast-math: NaN stays NaN.
#pragma once

#include <limits>

#include "vectors.h"

INLINE Vector within(Vector x, float limit) {
#if defined(__AVX512F__)
  return (Vector)_mm512_min_ps((__m512)splat(limit), _mm512_max_ps((__m512)splat(-limit), (__m512)x));
#else
  const Vector low = x < -limit ? splat(-limit) : x;
  return low > limit ? splat(limit) : low;
#endif
}

// above_one = e^y + 1 and below_one = e^y - 1, accurate where y is small, for |y| <= 87. With y = n log 2 + r, |r| <= log(2) / 2,
// s = 2^n and e^r = 1 + q they are s q + (s + 1) and s q + (s - 1).
template <int N>
INLINE void exponential(const Vector (&y)[N], Vector (&above_one)[N], Vector (&below_one)[N]) {
  const Vector magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, which the lowest bits then hold
  Vector n[N], r[N], q[N];
  EACH(N) n[k] = y[k] * 1.44269504f + magic; END
  EACH(N) r[k] = n[k] - magic; END
  EACH(N) q[k] = y[k] - r[k] * 0.693359375f; END  // log 2 in two parts, the first of so few bits that this is exact
  EACH(N) r[k] = q[k] + r[k] * 2.12194440e-4f; END
  // (e^r - 1 - r) / r^2 interpolated at Chebyshev's points: q is then wrong by 3e-8 of itself at most.
  EACH(N) q[k] = 0.00139261840f * r[k] + 0.00836317893f; END
  EACH(N) q[k] = q[k] * r[k] + 0.0416665561f; END
  EACH(N) q[k] = q[k] * r[k] + 0.166665763f; END
  EACH(N) q[k] = q[k] * r[k] + 0.5f; END
  EACH(N) q[k] = q[k] * (r[k] * r[k]) + r[k]; END
  EACH(N) n[k] = (Vector)(((Integers)n[k] << 23) + 0x3f800000); END
  EACH(N) above_one[k] = q[k] * n[k] + (n[k] + 1); END
  EACH(N) below_one[k] = q[k] * n[k] + (n[k] - 1); END
}

template <int N>
INLINE void reciprocals(Vector (&x)[N]) {
#if defined(__AVX512F__)
  Vector guess[N];
  EACH(N) guess[k] = (Vector)_mm512_rcp14_ps((__m512)x[k]); END  // to 2^-14; one step of Newton's squares the error
  EACH(N) x[k] = 1 - x[k] * guess[k]; END
  EACH(N) x[k] = guess[k] + guess[k] * x[k]; END
#else
  EACH(N) x[k] = 1 / x[k]; END
#endif
}

// In place, the sigmoid of the first SIGMOIDS numbers and tanh of the others.
template <int SIGMOIDS, int N>
INLINE void activate(Vector (&x)[N]) {
  Vector above[N], below[N];
  EACH(N) x[k] = k < SIGMOIDS ? -within(x[k], 87) : 2 * within(x[k], 9.1f); END
  exponential(x, above, below);
  reciprocals(above);
  EACH(N) x[k] = k < SIGMOIDS ? above[k] : below[k] * above[k]; END
}

INLINE Vector sigmoid(Vector x) {  // below -87, where it is under 2e-38, as at -87
  Vector values[1] = {x};
  activate<1>(values);
  return values[0];
}

// log x for x from 1e-37; infinity and NaN stay.
INLINE Vector logarithm(Vector x) {
  const Integers exponent = ((Integers)x - 0x3f3504f3) >> 23;  // x = m 2^exponent with m from sqrt(1/2) to sqrt(2)
  const Vector m = (Vector)((Integers)x - (exponent << 23));
  const Vector s = (m - 1) / (m + 1), s2 = s * s;  // log m = 2 artanh s
  const Vector log = __builtin_convertvector(exponent, Vector) * 0.693147181f +
                     (2 * s + 2 * s * s2 * (1 / 3.0f + s2 * (1 / 5.0f + s2 * (1 / 7.0f + s2 * (1 / 9.0f)))));
  return x < splat(std::numeric_limits<float>::infinity()) ? log : x;
}
