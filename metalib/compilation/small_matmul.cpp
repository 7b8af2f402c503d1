// Products of many small float32 matrices, C[b] = A[b] B[b], for sizes at which a BLAS call costs more than its arithmetic.
//
// A tile of ROWS x VECS vectors of C stays in registers while k runs over the inner dimension. B is read in rows of whole
// vectors; where it does not lie so in memory (transposed, or a width that is no multiple of the vector), a packed copy is read.
// GCC and Clang vector extensions keep it portable: the compiler chooses the machine's instructions.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t LANES = 8;
typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));

struct Matrix {  // element (i, j) of matrix b lies at data[b * batch + i * row + j * column]
  const float* data;
  int64_t batch, row, column;
};

inline Vector load(const float* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Store the first `width` of a row's numbers.
template <int VECS>
inline void store(const Vector (&row)[VECS], float* to, int64_t width) {
#pragma GCC unroll 8
  for (int v = 0; v < VECS; v++) {
    const Vector value = row[v];  // a copy, so that the sums themselves may stay in registers
    if (width >= (v + 1) * LANES)
      std::memcpy(to + v * LANES, &value, sizeof value);
    else if (width > v * LANES)
      std::memcpy(to + v * LANES, &value, (width - v * LANES) * sizeof(float));
  }
}

// One tile of C: rows 0..ROWS, columns 0..width (width <= VECS * LANES); B has rows of b_row floats, whole vectors readable.
template <int ROWS, int VECS>
inline void tile(int64_t inner, const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row, float* c,
                 int64_t c_row, int64_t width) {
  Vector sum[ROWS][VECS] = {};
#pragma GCC unroll 4
  for (int64_t k = 0; k < inner; k++) {
    Vector right[VECS];
#pragma GCC unroll 8
    for (int v = 0; v < VECS; v++) right[v] = load(b + k * b_row + v * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const float left = a[r * a_row + k * a_column];
#pragma GCC unroll 8
      for (int v = 0; v < VECS; v++) sum[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) store<VECS>(sum[r], c + r * c_row, width);
}

template <int ROWS, int VECS>
void strip(int64_t rows, int64_t inner, const Matrix& a, const float* b, int64_t b_row, float* c, int64_t c_row,
           int64_t width) {
  int64_t r = 0;
  for (; r + ROWS <= rows; r += ROWS)
    tile<ROWS, VECS>(inner, a.data + r * a.row, a.row, a.column, b, b_row, c + r * c_row, c_row, width);
  for (; r < rows; r++)
    tile<1, VECS>(inner, a.data + r * a.row, a.row, a.column, b, b_row, c + r * c_row, c_row, width);
}

// One product. Strips of up to five vectors; rows a tile so that sums, a row of B and one of A fit sixteen registers.
void product(int64_t rows, int64_t columns, int64_t inner, const Matrix& a, const float* b, int64_t b_row, float* c) {
  for (int64_t start = 0; start < columns;) {
    const int64_t left = columns - start, vectors = (left + LANES - 1) / LANES;
    const int64_t taken = vectors <= 5 ? vectors : vectors >= 8 ? 4 : (vectors + 1) / 2;
    const int64_t width = taken * LANES < left ? taken * LANES : left;
    const float* b_strip = b + start;
    float* c_strip = c + start;
    switch (taken) {
      case 1: strip<8, 1>(rows, inner, a, b_strip, b_row, c_strip, columns, width); break;
      case 2: strip<5, 2>(rows, inner, a, b_strip, b_row, c_strip, columns, width); break;
      case 3: strip<4, 3>(rows, inner, a, b_strip, b_row, c_strip, columns, width); break;
      case 4: strip<2, 4>(rows, inner, a, b_strip, b_row, c_strip, columns, width); break;
      default: strip<2, 5>(rows, inner, a, b_strip, b_row, c_strip, columns, width);
    }
    start += width;
  }
}

// Copy a LANES x LANES block, transposed.
inline void transpose_block(const float* from, int64_t from_row, float* to, int64_t to_row) {
  Vector in[LANES], out[LANES];
#pragma GCC unroll 8
  for (int i = 0; i < LANES; i++) in[i] = load(from + i * from_row);
#define LOW(x, y) __builtin_shufflevector(x, y, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH(x, y) __builtin_shufflevector(x, y, 2, 10, 3, 11, 6, 14, 7, 15)
#define FIRST(x, y) __builtin_shufflevector(x, y, 0, 1, 8, 9, 4, 5, 12, 13)
#define SECOND(x, y) __builtin_shufflevector(x, y, 2, 3, 10, 11, 6, 7, 14, 15)
#pragma GCC unroll 2
  for (int half = 0; half < 2; half++) {
    const Vector a = LOW(in[4 * half], in[4 * half + 1]), b = HIGH(in[4 * half], in[4 * half + 1]);
    const Vector c = LOW(in[4 * half + 2], in[4 * half + 3]), d = HIGH(in[4 * half + 2], in[4 * half + 3]);
    out[4 * half] = FIRST(a, c), out[4 * half + 1] = SECOND(a, c);
    out[4 * half + 2] = FIRST(b, d), out[4 * half + 3] = SECOND(b, d);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const Vector lower = __builtin_shufflevector(out[i], out[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    const Vector upper = __builtin_shufflevector(out[i], out[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    std::memcpy(to + i * to_row, &lower, sizeof lower);
    std::memcpy(to + (i + 4) * to_row, &upper, sizeof upper);
  }
#undef LOW
#undef HIGH
#undef FIRST
#undef SECOND
}

// Copy B to rows of `padded` floats; what lies beyond its columns is never stored to C.
void pack(const float* b, const Matrix& layout, int64_t inner, int64_t columns, int64_t padded, float* to) {
  int64_t j = 0;
  if (layout.row == 1)
    for (; j + LANES <= columns; j += LANES) {
      int64_t k = 0;
      for (; k + LANES <= inner; k += LANES) transpose_block(b + j * layout.column + k, layout.column, to + k * padded + j, padded);
      for (; k < inner; k++)
        for (int64_t i = j; i < j + LANES; i++) to[k * padded + i] = b[k + i * layout.column];
    }
  for (; j < columns; j++)
    for (int64_t k = 0; k < inner; k++) to[k * padded + j] = b[k * layout.row + j * layout.column];
}

void products(int64_t batch, int64_t rows, int64_t columns, int64_t inner, Matrix a, const Matrix& b, float* c) {
  const int64_t padded = (columns + LANES - 1) / LANES * LANES;
  const bool packed = b.column != 1 || padded != columns;
  static thread_local std::vector<float> buffer;
  if (packed && buffer.size() < static_cast<size_t>(inner * padded)) buffer.resize(inner * padded);
  for (int64_t index = 0; index < batch; index++, a.data += a.batch, c += rows * columns) {
    const float* right = b.data + index * b.batch;
    if (packed && (index == 0 || b.batch != 0)) pack(right, b, inner, columns, padded, buffer.data());
    product(rows, columns, inner, a, packed ? buffer.data() : right, packed ? padded : b.row, c);
  }
}

Matrix matrix(AtenTensorHandle tensor) {
  void* data;
  int64_t* strides;
  aoti_torch_get_data_ptr(tensor, &data);
  aoti_torch_get_strides(tensor, &strides);
  return {static_cast<const float*>(data), strides[0], strides[1], strides[2]};
}

}  // namespace

// What compiled programs call for metalib::small_matmul(a [b, m, k], b [b, k, n]) -> [b, m, n], contiguous.
extern "C" __attribute__((visibility("default"))) AOTITorchError aoti_torch_cpu_small_matmul(
    AtenTensorHandle a, AtenTensorHandle b, AtenTensorHandle* result) {
  int64_t *a_sizes, *b_sizes;
  aoti_torch_get_sizes(a, &a_sizes);
  aoti_torch_get_sizes(b, &b_sizes);
  const int64_t batch = a_sizes[0], rows = a_sizes[1], inner = a_sizes[2], columns = b_sizes[2];
  const int64_t sizes[3] = {batch, rows, columns}, strides[3] = {rows * columns, columns, 1};
  const AOTITorchError error =
      aoti_torch_empty_strided(3, sizes, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, result);
  if (error != AOTI_TORCH_SUCCESS) return error;
  void* c;
  aoti_torch_get_data_ptr(*result, &c);
  products(batch, rows, columns, inner, matrix(a), matrix(b), static_cast<float*>(c));
  return AOTI_TORCH_SUCCESS;
}
