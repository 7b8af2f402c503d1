// One step of the LSTM meta-learner (lstm.py) for many coordinates at once, and the derivatives of one step; float32.
//
// A vector register holds one number of LANES coordinates, weights are broadcast: the first layer is a product of the small
// weight matrix with hidden states [h, n]. A tile of coordinates is copied to rows of a fixed stride that stay in the cache,
// padded with zeros to whole vectors, whose derivatives are zero. The backward pass computes the gates again from the step's
// inputs instead of storing them. GCC and Clang vector extensions leave the choice of instructions to the compiler.
//
// Forward, for unit j of the first layer, with inputs x = (hidden state, preprocessed gradient and loss, 1):
//   z_q = W_q x for q in i, f, g, o;   i, f, o = sigmoid(z),  g = tanh(z_g);   c' = f c + i g;   h' = o tanh(c')
// and of the second, with y = (h', theta, previous, 1) and one previous value for each gate:
//   F = sigmoid(W_F y_F),  I = sigmoid(W_I y_I);   theta' = F theta - I gradient.
// Backward, d being the derivative of the objective, l the gates' values before the sigmoid, and d(F), d(I) holding what comes
// from the next step as well (which is added to d(l) instead where the logits are fed back):
//   d(F) = d(theta') theta,  d(I) = -d(theta') gradient,   d(l) = d(gate) gate (1 - gate),   d(W) = sum d(l) y
//   d(theta) = d(theta') F + sum d(l) W[theta],   d(previous) = d(l) W[previous],   d(h') = next + sum d(l) W[h']
//   d(c') = next + d(h') o (1 - tanh^2 c'),   d(c) = d(c') f,   d(W_q) = sum d(z_q) x,   d(h) = sum_q W_q[h] d(z_q)
//   d(z_o) = d(h') tanh(c') o (1 - o),  d(z_f) = d(c') c f (1 - f),  d(z_i) = d(c') g i (1 - i),  d(z_g) = d(c') i (1 - g^2)
// and, where gradient and loss are no constants (the exact rule), with d(x) = sum_q W_q[x] d(z_q) of their preprocessed values:
//   d(gradient) = -d(theta') I + d(x) dx/d(gradient),   d(loss) = sum over coordinates of d(x) dx/d(loss).
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "activations.h"

// The tensors of a call, [seeds, tasks, ...], or their derivatives.
struct Sizes { int64_t seeds, tasks, n, h, logits; };
struct Given { const float *omega, *gradient, *loss; };
struct ToGiven { float *gradient, *loss; };  // both null for a first-order rule
template <class Float>
struct Moving { Float *theta, *hidden, *cell, *forget, *input; };
struct Told { const float *forget, *input; };

namespace {

constexpr bool WIDE = LANES == 16;          // then there are 32 registers, else 16
constexpr int64_t VECS = WIDE ? 4 : 2;      // vectors of a chunk: 4 sums of each fit the registers
constexpr int64_t SIDE = 2;                 // vectors whose activations are computed side by side
constexpr int64_t BLOCK = WIDE ? 5 : 3;     // BLOCK^2 sums fit the registers
constexpr int64_t CHUNK = VECS * LANES;     // coordinates
constexpr int64_t TILE = 256;               // coordinates whose rows stay in the cache
constexpr int64_t STRIDE = TILE + LANES;    // of a tile's rows; an odd number of cache lines spreads them over the cache's sets
enum { GRADIENT, LOSS = 2, ONE = 4, EXTRA = 5 };  // rows of x after the hidden states
enum { I, F, G, O };                              // gates of the first layer, in omega's order

constexpr float EDGE = 4.53999298e-5f;     // e^-10
constexpr float BELOW_EDGE = 22026.4658f;  // e^10

// The two inputs that stand for a number x, see preprocess in lstm.py.
INLINE void preprocess(Vector x, Vector& first, Vector& second) {
  const Vector edge = splat(EDGE);
  const Vector magnitude = (Vector)((Integers)x & 0x7fffffff), sign = (Vector)(((Integers)x & INT32_MIN) | 0x3f800000);
  first = magnitude >= edge ? logarithm(magnitude) * 0.1f : splat(-1);
  second = magnitude >= edge ? sign : x * BELOW_EDGE;
}

// The derivative of x from those of its two inputs.
INLINE Vector preprocess_backward(Vector x, Vector d_first, Vector d_second) {
  const Vector magnitude = (Vector)((Integers)x & 0x7fffffff);
  return magnitude >= splat(EDGE) ? d_first * 0.1f / x : d_second * BELOW_EDGE;
}

INLINE void copy(const float* from, float* to, int64_t count) {
  asm("" : "+r"(count));  // hides that count is small, for which GCC takes an instruction that is slow to start
  std::memcpy(to, from, count * sizeof(float));
}

// Rows of a tile, or any numbers that are read as whole vectors; zero at first.
class Rows {
 public:
  explicit Rows(int64_t rows, int64_t stride = STRIDE) : stride_(stride) {
    const size_t bytes = (rows * stride * sizeof(float) + 63) / 64 * 64;
    data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    std::memset(data_.get(), 0, bytes);
  }
  float* operator[](int64_t row) const { return data_.get() + row * stride_; }
  // Copy `count` numbers of each row, which lie n apart in memory, and put zeros after them up to whole chunks.
  void fetch(const float* from, int64_t n, int64_t count, int64_t first = 0, int64_t rows = 1) const {
    for (int64_t r = 0; r < rows; r++) {
      float* to = (*this)[first + r];
      copy(from + r * n, to, count);
      for (int64_t i = count; i % CHUNK; i++) to[i] = 0;
    }
  }
  void give(float* to, int64_t n, int64_t count, int64_t first = 0, int64_t rows = 1) const {
    for (int64_t r = 0; r < rows; r++) copy((*this)[first + r], to + r * n, count);
  }
  // Say where in memory the rows go next or come from next, and ask for one chunk of that, while there is work to do.
  void announce(const float* memory, int64_t n) { memory_ = memory, n_ = n; }
  void prefetch(int64_t row, int64_t s) const {
    for (int64_t i = 0; i <= CHUNK; i += 16) __builtin_prefetch(memory_ + row * n_ + s + i);
  }

 private:
  int64_t stride_, n_ = 0;
  const float* memory_ = nullptr;
  std::unique_ptr<float, decltype(&std::free)> data_{nullptr, std::free};
};

// Where a tile is: its first coordinate among those of all tasks, the same in hidden and cell, and that of the next tile.
struct Place { int64_t n, h, task, at, memory, next, count; };

// A tile of theta and the rule's memory, or of their derivatives. `told` are the previous values of the second layer's gates.
struct State {
  Rows hidden, cell, theta{1}, told{2};

  explicit State(int64_t h, int64_t hidden_rows) : hidden(hidden_rows), cell(h) {}
  void fetch(const Moving<const float>& from, const Place& place) {
    hidden.fetch(from.hidden + place.memory, place.n, place.count, 0, place.h);
    cell.fetch(from.cell + place.memory, place.n, place.count, 0, place.h);
    theta.fetch(from.theta + place.at, place.n, place.count);
    told.fetch(from.forget + place.at, place.n, place.count, 0);
    told.fetch(from.input + place.at, place.n, place.count, 1);
    hidden.announce(from.hidden + place.next, place.n), cell.announce(from.cell + place.next, place.n);
  }
  void give(const Moving<float>& to, const Place& place) const {
    hidden.give(to.hidden + place.memory, place.n, place.count, 0, place.h);
    cell.give(to.cell + place.memory, place.n, place.count, 0, place.h);
    theta.give(to.theta + place.at, place.n, place.count);
    told.give(to.forget + place.at, place.n, place.count, 0);
    told.give(to.input + place.at, place.n, place.count, 1);
  }
  void prefetch(int64_t row, int64_t s) const { hidden.prefetch(row, s), cell.prefetch(row, s); }
};

inline int64_t n_omega(int64_t h) { return (h + EXTRA) * 4 * h + 2 * (h + 3); }

// One seed's omega, arranged as it is read. In order: W [h + 4 + 1][4][h], of which the inputs come first; W_F, W_I [h + 3].
struct Weights {
  int64_t h, inputs;
  Rows gates;   // unit j: weight of row k of (hidden, gradient) for gate q at [4 k + q]
  Rows back;    // group of four rows of x: weight of the group's row u for gate q of unit j at [4 (4 j + q) + u]; the hidden
                // states' groups, then that of gradient and loss
  Rows biases;  // gate q of unit j, with the loss's share
  const float* omega = nullptr;

  explicit Weights(int64_t h)
      : h(h), inputs(h + LOSS), gates(h, 4 * (h + LOSS)), back((h + 3) / 4 + 1, 16 * h), biases(h, 4) {}
  int64_t place(int64_t row, int64_t q, int64_t j) const {  // in omega, of the weight of a row of x
    return (row < h ? row + 4 : row < h + ONE ? row - h : row) * 4 * h + q * h + j;
  }
  const float* of_gate(int gate) const { return omega + (h + EXTRA) * 4 * h + gate * (h + 3); }

  void arrange(const float* from) {
    omega = from;
    for (int64_t j = 0; j < h; j++)
      for (int64_t q = 0; q < 4; q++) {
        for (int64_t k = 0; k < inputs; k++) gates[j][4 * k + q] = omega[place(k, q, j)];
        for (int64_t u = 0; u < h; u++) back[u / 4][4 * (4 * j + q) + u % 4] = omega[place(u, q, j)];
        for (int64_t u = 0; u < 4; u++) back[(h + 3) / 4][4 * (4 * j + q) + u] = omega[place(h + u, q, j)];
      }
  }
  void add_loss(float first, float second) const {
    for (int64_t j = 0; j < h; j++)
      for (int64_t q = 0; q < 4; q++)
        biases[j][q] = omega[place(h + LOSS, q, j)] * first + omega[place(h + LOSS + 1, q, j)] * second +
                       omega[place(h + ONE, q, j)];
  }
};

// Rows result_q = first[q] + sum_k weight[4 k + q] row_k for q = 0, ..., 3, over one chunk of coordinates. Not inlined, so that
// all registers are its own.
__attribute__((noinline)) void multiply(int64_t rows, const float* first, const float* weight, const float* row, float* result) {
  Vector sum[4 * VECS], right[VECS];
  EACH(4 * VECS) sum[k] = splat(first[k / VECS]); END
  for (int64_t i = 0; i < rows; i++, weight += 4, row += STRIDE) {
    EACH(VECS) right[k] = load(row + k * LANES); END
    EACH(4 * VECS) sum[k] += weight[k / VECS] * right[k % VECS]; END
  }
  EACH(4 * VECS) store(result + k / VECS * STRIDE + k % VECS * LANES, sum[k]); END
}

struct Unit { Vector i[SIDE], f[SIDE], g[SIDE], o[SIDE], cell[SIDE], tanh_cell[SIDE], hidden[SIDE]; };

// SIDE vectors of one unit of the first layer: z its four rows of sums, cell its cell state.
INLINE void activate_unit(const float* z, const float* cell, Unit& u) {
  Vector x[4 * SIDE];
  EACH(SIDE)
    x[k] = load(z + I * STRIDE + k * LANES), x[SIDE + k] = load(z + F * STRIDE + k * LANES);
    x[2 * SIDE + k] = load(z + O * STRIDE + k * LANES), x[3 * SIDE + k] = load(z + G * STRIDE + k * LANES);
  END
  activate<3 * SIDE>(x);
  EACH(SIDE)
    u.i[k] = x[k], u.f[k] = x[SIDE + k], u.o[k] = x[2 * SIDE + k], u.g[k] = x[3 * SIDE + k];
    u.tanh_cell[k] = u.cell[k] = u.f[k] * load(cell + k * LANES) + u.i[k] * u.g[k];
  END
  activate<0>(u.tanh_cell);
  EACH(SIDE) u.hidden[k] = u.o[k] * u.tanh_cell[k]; END
}

constexpr int64_t blocks_of(int64_t rows) { return (rows + BLOCK - 1) / BLOCK * BLOCK; }

// What both passes read: `state`, whose rows of hidden states go on with the rest of x; and the gradient.
struct Tile {
  State state;
  Rows gradient{1};

  explicit Tile(int64_t h) : state(h, blocks_of(h + EXTRA)) {}
  void fetch(const Given& given, const Moving<const float>& from, const Place& place) {
    state.fetch(from, place);
    gradient.fetch(given.gradient + place.at, place.n, place.count);
    for (int64_t s = 0; s < place.count; s += LANES) {
      Vector first, second;
      preprocess(load(gradient[0] + s), first, second);
      store(state.hidden[place.h + GRADIENT] + s, first), store(state.hidden[place.h + GRADIENT + 1] + s, second);
    }
  }
};

// Call body(place) for every tile of one seed, in a fixed order, with its numbers in tile and its task's loss in weights.
template <class Body>
void for_tiles(const Sizes& size, const Given& given, const Moving<const float>& from, int64_t seed, Weights& weights,
               Tile& tile, const Body& body) {
  const int64_t n = size.n, h = size.h;
  weights.arrange(given.omega + seed * n_omega(h));
  for (int64_t task = seed * size.tasks; task < (seed + 1) * size.tasks; task++) {
    Vector rows[3] = {{}, {}, splat(1)};
    preprocess(splat(given.loss[task]), rows[0], rows[1]);
    weights.add_loss(rows[0][0], rows[1][0]);
    for (int row = 0; row < 3; row++)
      for (int64_t s = 0; s < TILE; s += LANES) store(tile.state.hidden[h + LOSS + row] + s, rows[row]);
    for (int64_t start = 0; start < n; start += TILE) {
      const int64_t memory = task * n * h + start, next = start + TILE < n ? memory + TILE : (task + 1) * n * h;
      const Place place{n, h, task, task * n + start, memory, next, std::min(TILE, n - start)};
      tile.fetch(given, from, place);
      body(place);
    }
  }
}

// The sums z of all units at one chunk. First, for the activations are faster one after another.
void multiply_all(const Weights& weights, const Tile& tile, int64_t s, const Rows& z) {
  for (int64_t j = 0; j < weights.h; j++)
    multiply(weights.inputs, weights.biases[j], weights.gates[j], tile.state.hidden[0] + s, z[4 * j] + s);
}

void forward_chunk(const Weights& weights, const Tile& tile, bool logits, int64_t s, const Rows& z, const State& out) {
  const int64_t h = weights.h;
  Vector logit[2][VECS] = {};
  multiply_all(weights, tile, s, z);
  for (int64_t j = 0; j < h; j++) {
    tile.state.prefetch(j, s), out.prefetch(j, s);
    for (int64_t v = 0, a = s; v < VECS; v += SIDE, a += SIDE * LANES) {
      Unit u;
      activate_unit(z[4 * j] + a, tile.state.cell[j] + a, u);
      EACH(SIDE)
        store(out.hidden[j] + a + k * LANES, u.hidden[k]);
        store(out.cell[j] + a + k * LANES, u.cell[k]);
        for (int gate = 0; gate < 2; gate++) logit[gate][v + k] += weights.of_gate(gate)[j] * u.hidden[k];
      END
    }
  }
  for (int64_t v = 0, a = s; v < VECS; v++, a += LANES) {
    for (int gate = 0; gate < 2; gate++) {  // the bias last: it is the largest, and rounds what is added to it
      const float* w = weights.of_gate(gate) + h;
      logit[gate][v] += w[0] * load(tile.state.theta[0] + a) + w[1] * load(tile.state.told[gate] + a) + w[2];
    }
    const Vector forget = sigmoid(logit[0][v]), input = sigmoid(logit[1][v]);
    store(out.theta[0] + a, forget * load(tile.state.theta[0] + a) - input * load(tile.gradient[0] + a));
    store(out.told[0] + a, logits ? logit[0][v] : forget);
    store(out.told[1] + a, logits ? logit[1][v] : input);
  }
}

// What the backward pass keeps besides.
struct Backward {
  int64_t rows, columns;  // of sums
  State d;                // derivatives of what the step gave; then of what it was given
  Rows dz, told{2};       // row 4 j + q: z_q of unit j, then its derivative; the gates' values as the step gave them
  Rows inputs{4}, gradient{1};  // of the preprocessed gradient and loss, and of the gradient
  Rows sums, gate_sums;   // of products: by row of x and row of dz, in blocks; by gate and row of y. Each is a vector.

  explicit Backward(int64_t h)
      : rows(blocks_of(h + EXTRA)), columns(blocks_of(4 * h)), d(h, (h + 3) / 4 * 4), dz(columns), sums(rows * columns, LANES),
        gate_sums(2 * (h + 3), LANES) {}
};

INLINE void add(float* to, Vector value) { store(to, load(to) + value); }

void backward_chunk(const Weights& weights, const Tile& tile, bool logits, int64_t s, const Backward& b) {
  const int64_t h = weights.h;
  Vector d_logit[2][VECS];
  for (int64_t v = 0, a = s; v < VECS; v++, a += LANES) {
    const Vector theta = load(tile.state.theta[0] + a), d_theta = load(b.d.theta[0] + a);
    Vector to_theta{};
    for (int gate = 0; gate < 2; gate++) {
      const Vector told = load(b.told[gate] + a), value = logits ? sigmoid(told) : told, zero{};
      const Vector next = load(b.d.told[gate] + a), slope = gate == 0 ? theta : -load(tile.gradient[0] + a);
      const Vector d = (d_theta * slope + (logits ? zero : next)) * value * (1 - value) + (logits ? next : zero);
      const float* w = weights.of_gate(gate) + h;
      float* sums = b.gate_sums[gate * (h + 3) + h];
      add(sums, d * theta), add(sums + LANES, d * load(tile.state.told[gate] + a)), add(sums + 2 * LANES, d);
      store(b.d.told[gate] + a, d * w[1]);
      to_theta += d * w[0] + (gate == 0 ? d_theta * value : zero);
      d_logit[gate][v] = d;
      if (gate == 1) store(b.gradient[0] + a, -d_theta * value);
    }
    store(b.d.theta[0] + a, to_theta);
  }
  multiply_all(weights, tile, s, b.dz);
  for (int64_t j = 0; j < h; j++) {
    tile.state.prefetch(j, s), b.d.prefetch(j, s);
    Vector sum[2] = {};
    for (int64_t v = 0, a = s; v < VECS; v += SIDE) {
      Unit u;
      activate_unit(b.dz[4 * j] + a, tile.state.cell[j] + a, u);
      for (int k = 0; k < SIDE; k++, a += LANES) {
        Vector d_hidden = load(b.d.hidden[j] + a);
        for (int gate = 0; gate < 2; gate++) {
          d_hidden += d_logit[gate][v + k] * weights.of_gate(gate)[j];
          sum[gate] += d_logit[gate][v + k] * u.hidden[k];
        }
        const Vector d_cell = load(b.d.cell[j] + a) + d_hidden * u.o[k] * (1 - u.tanh_cell[k] * u.tanh_cell[k]);
        store(b.dz[4 * j + I] + a, d_cell * u.g[k] * u.i[k] * (1 - u.i[k]));
        store(b.dz[4 * j + F] + a, d_cell * load(tile.state.cell[j] + a) * u.f[k] * (1 - u.f[k]));
        store(b.dz[4 * j + G] + a, d_cell * u.i[k] * (1 - u.g[k] * u.g[k]));
        store(b.dz[4 * j + O] + a, d_hidden * u.tanh_cell[k] * u.o[k] * (1 - u.o[k]));
        store(b.d.cell[j] + a, d_cell * u.f[k]);
      }
    }
    for (int gate = 0; gate < 2; gate++) add(b.gate_sums[gate * (h + 3) + j], sum[gate]);
  }
  const float none[4] = {};
  for (int64_t j = 0; j < h; j += 4) multiply(4 * h, none, weights.back[j / 4], b.dz[0] + s, b.d.hidden[j] + s);
}

// From the derivatives of the sums z over one chunk to those of gradient and, summed lane by lane, of the loss's two inputs.
void backward_inputs(const Weights& weights, const Tile& tile, int64_t s, const Backward& b, Vector (&loss)[2]) {
  const float none[4] = {};
  multiply(4 * weights.h, none, weights.back[(weights.h + 3) / 4], b.dz[0] + s, b.inputs[0] + s);
  for (int64_t a = s; a < s + CHUNK; a += LANES) {
    add(b.gradient[0] + a, preprocess_backward(load(tile.gradient[0] + a), load(b.inputs[0] + a), load(b.inputs[1] + a)));
    EACH(2) loss[k] += load(b.inputs[LOSS + k] + a); END
  }
}

INLINE float total(Vector lanes) {
  float sum = 0;
  for (int64_t lane = 0; lane < LANES; lane++) sum += lanes[lane];
  return sum;
}

// The same for a tile, with the derivatives given back.
void backward_given(const Weights& weights, const Tile& tile, const Place& place, float loss, const Backward& b, const ToGiven& to) {
  Vector lanes[2] = {};
  for (int64_t s = 0; s < place.count; s += CHUNK) backward_inputs(weights, tile, s, b, lanes);
  b.gradient.give(to.gradient + place.at, place.n, place.count);
  to.loss[place.task] += preprocess_backward(splat(loss), splat(total(lanes[0])), splat(total(lanes[1])))[0];
}

// sums += rows of x times rows of dz, lane by lane, over the first `width` coordinates of a tile.
void add_products(const Tile& tile, const Backward& b, int64_t width) {
  for (int64_t c = 0; c < b.columns; c += BLOCK)
    for (int64_t r = 0; r < b.rows; r += BLOCK) {
      Vector sum[BLOCK * BLOCK];
      const float *left = tile.state.hidden[r], *right = b.dz[c];
      float* to = b.sums[0] + (c * b.rows + r * BLOCK) * LANES;  // the block's sums lie together
      EACH(BLOCK * BLOCK) sum[k] = load(to + k * LANES); END
      for (int64_t s = 0; s < width; s += LANES) {
        EACH(BLOCK * BLOCK) sum[k] += load(left + k / BLOCK * STRIDE + s) * load(right + k % BLOCK * STRIDE + s); END
      }
      EACH(BLOCK * BLOCK) store(to + k * LANES, sum[k]); END
    }
}

// Sum over lanes, into one seed's derivatives of omega; the sums then start again from zero.
void give_sums(const Weights& weights, const Backward& b, float* omega) {
  const int64_t h = weights.h;
  const auto take = [](float* lanes) {
    const float sum = total(load(lanes));
    store(lanes, Vector{});
    return sum;
  };
  for (int64_t r = 0; r < h + EXTRA; r++)
    for (int64_t c = 0; c < 4 * h; c++) {
      const int64_t block = c / BLOCK * BLOCK * b.rows + r / BLOCK * BLOCK * BLOCK;
      omega[weights.place(r, c % 4, c / 4)] = take(b.sums[block + r % BLOCK * BLOCK + c % BLOCK]);
    }
  for (int64_t k = 0; k < 2 * (h + 3); k++) omega[(h + EXTRA) * 4 * h + k] = take(b.gate_sums[k]);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void lstm_forward(const Sizes* size, const Given* given, const Moving<const float>* from, const Moving<float>* to) {
  const int64_t h = size->h;
  Tile tile(h);
  State result(h, h);
  Rows z(4 * h);
  Weights weights(h);
  for (int64_t seed = 0; seed < size->seeds; seed++)
    for_tiles(*size, *given, *from, seed, weights, tile, [&](const Place& place) {
      result.hidden.announce(to->hidden + place.memory, place.n), result.cell.announce(to->cell + place.memory, place.n);
      for (int64_t s = 0; s < place.count; s += CHUNK) forward_chunk(weights, tile, size->logits, s, z, result);
      result.give(*to, place);
    });
}

// From the derivatives d of what the step gave, of which told is a part, to those of what it was given.
EXPORT void lstm_backward(const Sizes* size, const Given* given, const Moving<const float>* from, const Told* told,
                          const Moving<const float>* d, const Moving<float>* to, float* const* to_omega,
                          const ToGiven* to_given) {
  Tile tile(size->h);
  Backward b(size->h);
  Weights weights(size->h);
  if (to_given->loss) std::fill_n(to_given->loss, size->seeds * size->tasks, 0.0f);
  for (int64_t seed = 0; seed < size->seeds; seed++) {
    for_tiles(*size, *given, *from, seed, weights, tile, [&](const Place& place) {
      b.d.fetch(*d, place);
      b.told.fetch(told->forget + place.at, place.n, place.count, 0);
      b.told.fetch(told->input + place.at, place.n, place.count, 1);
      for (int64_t s = 0; s < place.count; s += CHUNK) backward_chunk(weights, tile, size->logits, s, b);
      if (to_given->loss) backward_given(weights, tile, place, given->loss[place.task], b, *to_given);
      add_products(tile, b, (place.count + CHUNK - 1) / CHUNK * CHUNK);
      b.d.give(*to, place);
    });
    give_sums(weights, b, *to_omega + seed * n_omega(size->h));
  }
}
