// How fast one thread adds products in registers: the arithmetic that a core can do when nothing else holds it up.
#include "vectors.h"

namespace {
constexpr int SUMS = LANES == 16 ? 24 : 12;  // independent, more than the processor has under way; with two factors in registers
}

// Makes `repeats` multiply-adds of each sum, beginning with the given numbers; returns how many operations that were.
extern "C" double multiply_add(int64_t repeats, float* numbers /* 24 */) {
  Vector sum[SUMS];
  EACH(SUMS) sum[k] = splat(numbers[k]); END  // different, or the compiler would do the work once
  const Vector a = splat(0.5f), b = splat(1.0f);
  for (int64_t i = 0; i < repeats; i++) {
    EACH(SUMS) sum[k] = sum[k] * a + b; END
  }
  Vector total = {};
  EACH(SUMS) total += sum[k]; END
  numbers[0] = total[0];
  return 2.0 * LANES * SUMS * repeats;
}
