// Meta-steps of MAML for a ReLU network with mean squared errors, 25 tasks of 10 examples say; float32, one thread.
//
// Adapted parameters are never formed. A gradient is a sum over examples of outer products, so the inner step t leaves
//     W_t = W - rate sum_(r<t) D_r' A_r
// with A_r the inputs and D_r the errors of a layer's outputs, one row an example of the support, in inner step r. What is
// needed are products with W_t and W_t', and those are products with W, which all tasks share and the cache holds, and with
// the small matrices A A_r' and D D_r' of examples by examples:
//     A W_t' = A W' - rate sum_r (A A_r') D_r,        D W_t = D W - rate sum_r (D D_r') A_r.
// The bias is the weight of a constant input: A has a last column of ones.
//
// One pass t (inner steps 0..T-1 on the support, T on the query), with M_l = [A_l > 0] and n numbers in Y:
//     Z_l = A_(l-1) W_l',  A_l = M_l Z_l;             D_L = 2 (Z_L - Y) / n,  D_(l-1) = M_(l-1) (D_l W_l).
// The query gradient v = D_T' A_T goes back through the inner steps, last first, by v <- v - rate H v. With R the
// derivative along u = -rate v (Pearlmutter 1994), u of the same form, for inner step t:
//     R Z_l = R A_(l-1) W_l' + A_(l-1) U_l',          R D_L = 2 R Z_L / n,  R D_(l-1) = M_(l-1) (R D_l W_l + D_l U_l),
//     v <- v + R D' A + D' R A.
// v is kept as a stack of pairs too: errors (D_T, R D_t, D_t, ...) and inputs (A_T, A_t, R A_t, ...). The sum over tasks of
// the products of both is the meta-gradient.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "vectors.h"

namespace {

constexpr int MOST_ROWS = LANES == 16 ? 8 : 4;  // of a tile of sums that stays in registers,
constexpr int MOST_VECS = 3;                    // and its vectors a row

constexpr int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

struct Rows {  // of a matrix, each of `stride` numbers; those beyond its columns are 0
  float* data;
  int64_t stride;
  float* operator[](int64_t row) const { return data + row * stride; }
};

// A left factor of any layout: element (i, k) lies at data[i * row + k * column].
struct Left {
  const float* data;
  int64_t row, column;
};
Left as_is(Rows a) { return {a.data, a.stride, 1}; }
Left transposed(Rows a) { return {a.data, 1, a.stride}; }

// INLINE, for a call would take an eighth of the whole time.
template <bool ADD, int ROWS, int VECS>
INLINE void tile(int64_t inner, Left a, Rows b, Rows c) {
  Vector sum[ROWS][VECS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
    for (int v = 0; v < VECS; v++) sum[r][v] = ADD ? load(c[r] + v * LANES) : Vector{};
  for (int64_t k = 0; k < inner; k++) {
    Vector right[VECS];
#pragma GCC unroll 8
    for (int v = 0; v < VECS; v++) right[v] = load(b[k] + v * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const Vector left = splat(a.data[r * a.row + k * a.column]);
#pragma GCC unroll 8
      for (int v = 0; v < VECS; v++) sum[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
    for (int v = 0; v < VECS; v++) store(c[r] + v * LANES, sum[r][v]);
}

template <bool ADD, int VECS>
void strip(int64_t rows, int64_t inner, Left a, Rows b, Rows c) {
  while (rows > 0) {
    const int64_t tiles = (rows + MOST_ROWS - 1) / MOST_ROWS, taken = (rows + tiles - 1) / tiles;
    switch (taken) {
      case 1: tile<ADD, 1, VECS>(inner, a, b, c); break;
      case 2: tile<ADD, 2, VECS>(inner, a, b, c); break;
      case 3: tile<ADD, 3, VECS>(inner, a, b, c); break;
      case 4: tile<ADD, 4, VECS>(inner, a, b, c); break;
      case 5: tile<ADD, std::min(5, MOST_ROWS), VECS>(inner, a, b, c); break;
      case 6: tile<ADD, std::min(6, MOST_ROWS), VECS>(inner, a, b, c); break;
      case 7: tile<ADD, std::min(7, MOST_ROWS), VECS>(inner, a, b, c); break;
      default: tile<ADD, MOST_ROWS, VECS>(inner, a, b, c);
    }
    a.data += taken * a.row, c.data += taken * c.stride, rows -= taken;
  }
}

// c = a b, or with ADD c += a b; whole vectors of b's and c's rows, `columns` and what pads them.
template <bool ADD>
void product(int64_t rows, int64_t inner, int64_t columns, Left a, Rows b, Rows c) {
  for (int64_t left = padded(columns) / LANES; left > 0;) {
    const int64_t strips = (left + MOST_VECS - 1) / MOST_VECS, taken = (left + strips - 1) / strips;
    switch (taken) {
      case 1: strip<ADD, 1>(rows, inner, a, b, c); break;
      case 2: strip<ADD, 2>(rows, inner, a, b, c); break;
      default: strip<ADD, 3>(rows, inner, a, b, c);
    }
    b.data += taken * LANES, c.data += taken * LANES, left -= taken;
  }
}

typedef float Four __attribute__((vector_size(4 * sizeof(float))));

INLINE Four folded(Vector x) {  // to four sums
  Four parts[LANES / 4];
  std::memcpy(parts, &x, sizeof x);
  if constexpr (LANES == 16) return (parts[0] + parts[2]) + (parts[1] + parts[3]);
  return parts[0] + parts[1];
}

// The sums of four vectors.
INLINE Four sums(const Vector (&x)[4]) {
  const Four a = folded(x[0]), b = folded(x[1]), c = folded(x[2]), d = folded(x[3]);
  const Four ab = Four{a[0], b[0], a[1], b[1]} + Four{a[2], b[2], a[3], b[3]};
  const Four cd = Four{c[0], d[0], c[1], d[1]} + Four{c[2], d[2], c[3], d[3]};
  return Four{ab[0], ab[1], cd[0], cd[1]} + Four{ab[2], ab[3], cd[2], cd[3]};
}

// c = scale a b', every element a sum along rows; at most two columns, of which the second may be padding.
void narrow_inner_products(int64_t a_rows, int64_t b_rows, float scale, Rows a, Rows b, Rows c) {
  for (int64_t j = 0; j < b_rows; j += LANES) {
    Vector first = {}, second = {};
    for (int64_t k = 0; k < std::min(LANES, b_rows - j); k++) first[k] = scale * b[j + k][0], second[k] = scale * b[j + k][1];
    for (int64_t i = 0; i < a_rows; i++) store(c[i] + j, a[i][0] * first + a[i][1] * second);
  }
}

// The same of four or fewer rows of b for the A_ROWS rows of a from row i on.
template <int A_ROWS>
INLINE void some_inner_products(int64_t vectors, int64_t i, int64_t j, int64_t b_rows, float scale, Rows a, Rows b, Rows c) {
  Vector sum[A_ROWS][4] = {};
  const float* rows[4];  // the last one again where there are no four
  EACH(4) rows[k] = b[std::min(j + k, b_rows - 1)]; END
  for (int64_t v = 0; v < vectors; v++) {
    Vector right[4];
    EACH(4) right[k] = load(rows[k] + v * LANES); END
    for (int r = 0; r < A_ROWS; r++) {
      const Vector left = load(a[i + r] + v * LANES);
      EACH(4) sum[r][k] += left * right[k]; END
    }
  }
  for (int r = 0; r < A_ROWS; r++) {
    const Four found = scale * sums(sum[r]);
    if (j + 4 <= b_rows) std::memcpy(c[i + r] + j, &found, sizeof found);
    else for (int64_t k = 0; k < b_rows - j; k++) c[i + r][j + k] = found[k];
  }
}

// The same for any number of columns.
void inner_products(int64_t a_rows, int64_t b_rows, int64_t columns, float scale, Rows a, Rows b, Rows c) {
  if (columns <= 2) return narrow_inner_products(a_rows, b_rows, scale, a, b, c);
  const int64_t vectors = padded(columns) / LANES;
  for (int64_t j = 0; j < b_rows; j += 4) {
    int64_t i = 0;
    for (; i + 2 <= a_rows; i += 2) some_inner_products<2>(vectors, i, j, b_rows, scale, a, b, c);
    if (i < a_rows) some_inner_products<1>(vectors, i, j, b_rows, scale, a, b, c);
  }
}

// to *= [where > 0], over the first `columns` and what pads them.
void masked(int64_t rows, int64_t columns, Rows where, Rows to) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += LANES) {
      const Vector x = load(to[i] + j);
      store(to[i] + j, load(where[i] + j) > 0 ? x : Vector{});
    }
}

struct Sizes { int64_t layers, steps, seeds, tasks, support, query, inner_steps, first_order; };
struct Rates { double inner, beta1, beta2, epsilon; };  // 1 - beta2 would lose its digits in float32
struct Examples { const float *x, *y; };

// Whole cache lines of zeros, handed out in parts.
class Memory {
 public:
  Rows take(int64_t rows, int64_t columns) {
    const int64_t stride = padded(columns), size = std::max<int64_t>(rows * stride, LANES) * sizeof(float);
    parts_.emplace_back(static_cast<float*>(std::aligned_alloc(64, (size + 63) / 64 * 64)), &std::free);
    if (!parts_.back()) throw std::bad_alloc();
    std::memset(parts_.back().get(), 0, size);
    return {parts_.back().get(), stride};
  }

 private:
  std::vector<std::unique_ptr<float, decltype(&std::free)>> parts_;
};

// A layer's weight with its bias as the last column, as it is and transposed.
struct Layer {
  int64_t n_in, n_out;
  Rows weight, turned;

  Layer(int64_t n_in, int64_t n_out, Memory& memory)
      : n_in(n_in), n_out(n_out), weight(memory.take(n_out, n_in + 1)), turned(memory.take(n_in + 1, n_out)) {}

  // Copies the layer's part of theta, the weight and then the bias; returns where the next layer's part begins.
  const float* read(const float* theta) {
    const float* bias = theta + n_out * n_in;
    for (int64_t o = 0; o < n_out; o++, theta += n_in) {
      std::copy_n(theta, n_in, weight[o]);
      weight[o][n_in] = bias[o];
      for (int64_t i = 0; i < n_in; i++) turned[i][o] = theta[i];
    }
    std::copy_n(bias, n_out, turned[n_in]);
    return bias + n_out;
  }

  // z = a W' for inputs with a last column: of ones, or of zeros where the bias has no part.
  void forward(int64_t rows, Rows a, Rows z) const {
    if (n_out > 2) return product<false>(rows, n_in + 1, n_out, as_is(a), turned, z);
    for (int64_t i = 0; i < rows; i++) store(z[i], Vector{});  // a NaN of another task may have reached the padding
    inner_products(rows, n_out, n_in + 1, 1, a, weight, z);
  }

  void backward(int64_t rows, Rows d, Rows to) const { product<false>(rows, n_out, n_in, as_is(d), weight, to); }
};

// What one task needs of a layer: the stacks of v, whose blocks are the errors and inputs of every pass.
struct LayerRecord {
  Rows errors, inputs;                                  // [(query; R D_t, D_t of t = T-1, ..., 0)], [(query; A_t, R A_t)]
  std::vector<std::vector<Rows>> error_products, input_products;  // [u][r], r < u: -rate D_u D_r', -rate A_u A_r'
};

class Task {
 public:
  Task(const Sizes& sizes, float rate, const std::vector<Layer>& layers, Memory& memory)
      : sizes_(sizes), rate_(rate), layers_(layers), last_(layers.size() - 1), T_(sizes.inner_steps) {
    const int64_t stacked = sizes.query + 2 * sizes.support * T_;
    for (const Layer& layer : layers) {
      LayerRecord record{memory.take(stacked, layer.n_out), memory.take(stacked, layer.n_in + 1), {}, {}};
      for (int64_t u = 0; u <= T_; u++) {
        record.error_products.emplace_back();
        record.input_products.emplace_back();
        for (int64_t r = 0; r < u; r++) {
          record.error_products[u].push_back(memory.take(rows(u), sizes.support));
          record.input_products[u].push_back(memory.take(rows(u), sizes.support));
        }
      }
      records_.push_back(std::move(record));
    }
    moved_products_ = memory.take(sizes.support, sizes.support);
  }

  // Fills the stacks of v; returns the query loss.
  float differentiate(Examples support, Examples query) {
    for (int64_t t = 0; t < T_; t++) pass(t, support);
    const float loss = pass(T_, query);
    if (!sizes_.first_order)
      for (int64_t t = T_ - 1; t >= 0; t--) pass_along(t);
    return loss;
  }

  int64_t stacked() const { return sizes_.query + (sizes_.first_order ? 0 : 2 * sizes_.support * T_); }
  const LayerRecord& record(size_t l) const { return records_[l]; }

 private:
  int64_t rows(int64_t t) const { return t == T_ ? sizes_.query : sizes_.support; }
  Rows block(Rows stack, int64_t t, bool second) const {  // of pass t: the pair's first (R D, A) or second (D, R A)
    const int64_t row = t == T_ ? 0 : sizes_.query + (2 * (T_ - 1 - t) + second) * sizes_.support;
    return {stack[row], stack.stride};
  }
  Rows a(size_t l, int64_t t) const { return block(records_[l].inputs, t, false); }
  Rows d(size_t l, int64_t t) const { return block(records_[l].errors, t, true); }
  Rows moved_a(size_t l, int64_t t) const { return block(records_[l].inputs, t, true); }
  Rows moved_d(size_t l, int64_t t) const { return block(records_[l].errors, t, false); }

  // Forward and backward pass at theta_t; returns the loss.
  float pass(int64_t t, Examples examples) {
    const int64_t n = rows(t);
    for (int64_t i = 0; i < n; i++) {
      std::copy_n(examples.x + i * layers_[0].n_in, layers_[0].n_in, a(0, t)[i]);
      a(0, t)[i][layers_[0].n_in] = 1;
    }
    for (size_t l = 0; l <= last_; l++) {
      const Rows z = l == last_ ? d(l, t) : a(l + 1, t);
      layers_[l].forward(n, a(l, t), z);
      for (int64_t r = 0; r < t; r++) {
        const Rows products = records_[l].input_products[t][r];
        inner_products(n, sizes_.support, layers_[l].n_in + 1, -rate_, a(l, t), a(l, r), products);
        product<true>(n, sizes_.support, layers_[l].n_out, as_is(products), d(l, r), z);
      }
      if (l < last_) rectify(n, layers_[l].n_out, z);
    }
    const float loss = subtract_targets(n, examples.y, d(last_, t));
    for (size_t l = last_; l > 0; l--) {
      layers_[l].backward(n, d(l, t), d(l - 1, t));
      for (int64_t r = 0; r < t; r++) {
        const Rows products = records_[l].error_products[t][r];
        inner_products(n, sizes_.support, layers_[l].n_out, -rate_, d(l, t), d(l, r), products);
        product<true>(n, sizes_.support, layers_[l].n_in, as_is(products), a(l, r), d(l - 1, t));
      }
      mask(n, layers_[l].n_in, a(l, t), d(l - 1, t));
    }
    return loss;
  }

  // The derivatives of inner step t along -rate v, v being what the passes after t have stacked.
  void pass_along(int64_t t) {
    const int64_t n = sizes_.support;
    for (size_t l = 0; l <= last_; l++) {
      const Rows z = l == last_ ? moved_d(l, t) : moved_a(l + 1, t);
      if (l > 0) {
        layers_[l].forward(n, moved_a(l, t), z);
        for (int64_t r = 0; r < t; r++)
          add_products(n, layers_[l].n_in, moved_a(l, t), a(l, r), layers_[l].n_out, d(l, r), z);
      } else {
        std::memset(z.data, 0, n * z.stride * sizeof(float));
      }
      for (int64_t u = t + 1; u <= T_; u++) {
        const Rows products = records_[l].input_products[u][t];
        product<true>(n, rows(u), layers_[l].n_out, transposed(products), u == T_ ? d(l, u) : moved_d(l, u), z);
        if (u < T_ && l > 0) add_products(n, layers_[l].n_in, a(l, t), moved_a(l, u), layers_[l].n_out, d(l, u), z);
      }
      if (l < last_) masked(n, layers_[l].n_out, a(l + 1, t), z);
    }
    const Rows errors = moved_d(last_, t);
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < layers_[last_].n_out; j++) errors[i][j] *= 2.0f / (n * layers_[last_].n_out);
    for (size_t l = last_; l > 0; l--) {
      const Rows to = moved_d(l - 1, t);
      layers_[l].backward(n, moved_d(l, t), to);
      for (int64_t r = 0; r < t; r++) add_products(n, layers_[l].n_out, moved_d(l, t), d(l, r), layers_[l].n_in, a(l, r), to);
      for (int64_t u = t + 1; u <= T_; u++) {
        const Rows products = records_[l].error_products[u][t];
        if (u < T_) add_products(n, layers_[l].n_out, d(l, t), moved_d(l, u), layers_[l].n_in, a(l, u), to);
        product<true>(n, rows(u), layers_[l].n_in, transposed(products), u == T_ ? a(l, u) : moved_a(l, u), to);
      }
      mask(n, layers_[l].n_in, a(l, t), to);
    }
  }

  // to += -rate (x y') right, y and right being of the support.
  void add_products(int64_t n, int64_t inner, Rows x, Rows y, int64_t columns, Rows right, Rows to) {
    inner_products(n, sizes_.support, inner, -rate_, x, y, moved_products_);
    product<true>(n, sizes_.support, columns, as_is(moved_products_), right, to);
  }

  static void rectify(int64_t n, int64_t columns, Rows z) {
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < columns; j += LANES) {
        const Vector x = load(z[i] + j);
        store(z[i] + j, x < 0 ? Vector{} : x);  // NaN stays
      }
      z[i][columns] = 1;
    }
  }

  // Clears the errors of units that were off, and the column that the bias wrote.
  static void mask(int64_t n, int64_t columns, Rows where, Rows errors) {
    masked(n, columns, where, errors);
    if (columns < errors.stride)
      for (int64_t i = 0; i < n; i++) errors[i][columns] = 0;
  }

  // Outputs into errors 2 (z - y) / n; returns the mean of the squares.
  float subtract_targets(int64_t n, const float* y, Rows z) const {
    const int64_t n_out = layers_[last_].n_out;
    float total = 0;
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n_out; j++) {
        const float difference = z[i][j] - y[i * n_out + j];
        total += difference * difference;
        z[i][j] = 2 * difference / (n * n_out);
      }
    return total / (n * n_out);
  }

  Sizes sizes_;
  float rate_;
  const std::vector<Layer>& layers_;
  size_t last_;
  int64_t T_;
  std::vector<LayerRecord> records_;
  Rows moved_products_;
};

// The sum over tasks of a layer's gradient, bias in the last column; transposed where that takes fewer vectors.
struct Gradient {
  bool turned;
  Rows sum;

  Gradient(const Layer& layer, Memory& memory)
      : turned((layer.n_in + 1) * padded(layer.n_out) < layer.n_out * padded(layer.n_in + 1)),
        sum(turned ? memory.take(layer.n_in + 1, layer.n_out) : memory.take(layer.n_out, layer.n_in + 1)) {}

  void clear(const Layer& layer) { std::memset(sum.data, 0, (turned ? layer.n_in + 1 : layer.n_out) * sum.stride * sizeof(float)); }

  void add(const Layer& layer, const LayerRecord& record, int64_t stacked) {
    if (turned) product<true>(layer.n_in + 1, stacked, layer.n_out, transposed(record.inputs), record.errors, sum);
    else product<true>(layer.n_out, stacked, layer.n_in + 1, transposed(record.errors), record.inputs, sum);
  }

  float* write(const Layer& layer, float scale, float* to) const {
    const auto at = [&](int64_t o, int64_t i) { return scale * (turned ? sum[i][o] : sum[o][i]); };
    for (int64_t o = 0; o < layer.n_out; o++)
      for (int64_t i = 0; i < layer.n_in; i++) *to++ = at(o, i);
    for (int64_t o = 0; o < layer.n_out; o++) *to++ = at(o, layer.n_in);
    return to;
  }
};

void adam(int64_t n, const float* __restrict gradient, float rate, float correction, const Rates& rates, float* __restrict phi,
          float* __restrict first, float* __restrict second) {
  const float beta1 = rates.beta1, beta2 = rates.beta2, rest1 = 1 - rates.beta1, rest2 = 1 - rates.beta2;
  const float epsilon = rates.epsilon;
  for (int64_t i = 0; i < n; i++) {
    first[i] = beta1 * first[i] + rest1 * gradient[i];
    second[i] = beta2 * second[i] + rest2 * gradient[i] * gradient[i];
    phi[i] -= rate * first[i] / (std::sqrt(second[i]) / correction + epsilon);
  }
}

void meta_steps(const Sizes& sizes, const int64_t* widths, const Rates& rates, const float* step_rates, const float* corrections,
                Examples support, Examples query, float* phi, float* first, float* second, float* losses) {
  Memory memory;
  std::vector<Layer> layers;
  std::vector<Gradient> sums;
  int64_t n_parameters = 0;
  for (int64_t l = 0; l < sizes.layers; l++) {
    layers.emplace_back(widths[l], widths[l + 1], memory);
    sums.emplace_back(layers.back(), memory);
    n_parameters += (widths[l] + 1) * widths[l + 1];
  }
  Task task(sizes, rates.inner, layers, memory);
  std::vector<float> gradient(n_parameters);
  const int64_t n_in = widths[0], n_out = widths[sizes.layers];
  for (int64_t step = 0; step < sizes.steps; step++) {
    for (int64_t seed = 0; seed < sizes.seeds; seed++) {
      float* theta = phi + seed * n_parameters;
      const float* part = theta;
      for (Layer& layer : layers) part = layer.read(part);
      for (int64_t l = 0; l < sizes.layers; l++) sums[l].clear(layers[l]);
      double loss = 0;
      for (int64_t index = 0; index < sizes.tasks; index++) {
        loss += task.differentiate(support, query);
        for (int64_t l = 0; l < sizes.layers; l++) sums[l].add(layers[l], task.record(l), task.stacked());
        support.x += sizes.support * n_in, support.y += sizes.support * n_out;
        query.x += sizes.query * n_in, query.y += sizes.query * n_out;
      }
      float* to = gradient.data();
      for (int64_t l = 0; l < sizes.layers; l++) to = sums[l].write(layers[l], 1.0f / sizes.tasks, to);
      adam(n_parameters, gradient.data(), step_rates[step], corrections[step], rates, theta, first + seed * n_parameters,
           second + seed * n_parameters);
      *losses++ = static_cast<float>(loss / sizes.tasks);
    }
  }
}

}  // namespace

// Advances phi and Adam's moments [seeds, n_parameters] by `steps` meta-steps, in place, and writes losses [steps, seeds].
// `widths` are those of the network's layers from input to output; inputs x and targets y are [steps, seeds, tasks, n, width].
// Step i, Adam's step t, has the rate step_rates[i] = rate / (1 - beta1^t) and the correction corrections[i] = sqrt(1 - beta2^t).
// Returns 0, or 1 for lack of memory.
extern "C" int mlp_meta_steps(const Sizes* sizes, const int64_t* widths, const Rates* rates, const float* step_rates,
                              const float* corrections, const float* support_x, const float* support_y, const float* query_x,
                              const float* query_y, float* phi, float* first, float* second, float* losses) try {
  meta_steps(*sizes, widths, *rates, step_rates, corrections, {support_x, support_y}, {query_x, query_y}, phi, first, second,
             losses);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}
