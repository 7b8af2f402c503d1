// Steps bodies of one MuJoCo model, bit for bit as mj_step does, without what no next state and no observation needs.
//
// mj_step is: three checks, mj_forward, one integration. Left out here are
// - the checks, which only warn where automatic resets are off (bodies.py), and sensors, which nobody reads;
// - cameras, lights, flexes, tendons, islands and sleep, which mj_fwdPosition also goes through: these bodies have none, or
//   none that moves them. The inner stages of mj_RungeKutta are MuJoCo's own, and complete.
//
// A thread has one mjData for all its bodies, which stays in the processor's cache. When derive() is done with an ant, it
// has computed the stages of positions and velocities with which the next step begins. What later stages read of them,
// about 5 kB, is kept. One mjData a body would keep all of it, but fetching that takes as long as computing it.
#include <mujoco/mjxmacro.h>
#include <mujoco/mujoco.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int TORSO = 1;  // the first body after the world
constexpr int FORCE = 6;  // torque and force
constexpr std::size_t CACHE_LINE = 64;

// The caller's memory, one row a body. State and warm start together are a body's whole state; both may be rewritten.
struct Rows {
  double* state;           // positions, velocities: nq + nv
  double* warmstart;       // the solver's: nv
  const double* controls;  // nu
  double* derived;         // contact forces 6 nbody, torso rotation 9, centre of mass 3, its x-velocity 1
};

void copy(double* to, const double* from, int count) { std::memcpy(to, from, count * sizeof(double)); }

// mj_forward, in two parts: what depends on positions and velocities alone, and what depends on controls as well.
void positions_and_velocities(const mjModel* m, mjData* d) {
  mj_kinematics(m, d);
  mj_comPos(m, d);
  mj_collision(m, d);
  mj_makeM(m, d);
  mj_factorM(m, d);
  mj_makeConstraint(m, d);
  mj_transmission(m, d);
  mj_projectConstraint(m, d);
  mj_fwdVelocity(m, d);
}

void accelerations(const mjModel* m, mjData* d) {
  mj_fwdActuation(m, d);
  mj_fwdAcceleration(m, d);
  mj_fwdConstraint(m, d);
}

// What accelerations() and the integrators read of positions_and_velocities(), beside scalars and the arena; the actuators
// are motors, whose lengths and velocities nobody reads.
#define FIELDS_READ_LATER                                                   \
  X(M, nC) X(qLD, nC) X(qLDiagInv, nv) X(qfrc_bias, nv) X(qfrc_passive, nv) \
  X(actuator_moment, nJmom) X(moment_rownnz, nout) X(moment_rowadr, nout) X(moment_colind, nJmom)

// Calls transfer(address, bytes) for each piece of what positions_and_velocities() leaves to later stages, which may read
// or write it. The state comes first. Of the arena's arrays these are all that there are for Newton's method.
template <typename Transfer>
void transfer_stages(const mjModel* m, mjData* d, Transfer transfer) {
  transfer(d->qpos, m->nq * sizeof(*d->qpos));
  transfer(d->qvel, m->nv * sizeof(*d->qvel));
#define X(type, name) transfer(&d->name, sizeof(d->name));
  MJDATA_SCALAR
#undef X
  // Arrays as distances from the arena's start, for the body's next mjData may be another thread's.
  const auto arena = static_cast<std::byte*>(d->arena);
#define X(type, name, rows, columns)                                                        \
  auto name = d->name ? reinterpret_cast<std::byte*>(d->name) - arena : std::ptrdiff_t{-1}; \
  transfer(&name, sizeof(name));                                                            \
  d->name = name < 0 ? nullptr : reinterpret_cast<type*>(arena + name);
  MJDATA_ARENA_POINTERS_CONTACT
  MJDATA_ARENA_POINTERS_SOLVER
#undef X
#define X(name, count) transfer(d->name, m->count * sizeof(*d->name));
  FIELDS_READ_LATER
#undef X
  transfer(arena, d->parena);
}

class Stepper {
 public:
  Stepper(const mjModel* model, int substeps, int64_t bodies, int64_t threads, bool derives, const Rows& rows)
      : m_(model), substeps_(substeps), derives_(derives), rows_(rows), data_(threads), kept_(bodies) {
    for (mjData*& d : data_) d = mj_makeData(m_);
  }

  ~Stepper() {
    for (mjData* d : data_) mj_deleteData(d);
  }

  // Calls a function for each of `count` bodies, the first ones if `ids` is null, in contiguous shares on threads.
  void each(const int64_t* ids, int64_t count, void (Stepper::*function)(mjData* d, int64_t body)) {
    const auto threads = std::min(static_cast<int64_t>(data_.size()), count);
    auto share = [=, this](int64_t thread) {
      const int64_t last = count * (thread + 1) / threads;
      for (int64_t i = count * thread / threads; i < last; ++i) (this->*function)(data_[thread], ids ? ids[i] : i);
    };
    if (!count) return;
    std::vector<std::jthread> others;  // joined at the end of this block
    for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(share, thread);
    share(0);
  }

  void step(mjData* d, int64_t body) {
    load(d, body);
    for (int substep = 0; substep < substeps_; ++substep) {
      if (substep || !recall(d, body)) positions_and_velocities(m_, d);
      accelerations(m_, d);
      m_->opt.integrator == mjINT_RK4 ? mj_RungeKutta(m_, d, 4) : mj_Euler(m_, d);
    }
    copy(state(body), d->qpos, m_->nq);
    copy(state(body) + m_->nq, d->qvel, m_->nv);
    copy(warmstart(body), d->qacc_warmstart, m_->nv);
    if (derives_) derive(d, body);
  }

  void forward(mjData* d, int64_t body) {
    load(d, body);
    derive(d, body);
  }

 private:
  double* state(int64_t body) { return rows_.state + body * (m_->nq + m_->nv); }
  double* warmstart(int64_t body) { return rows_.warmstart + body * m_->nv; }

  void load(mjData* d, int64_t body) {
    copy(d->qpos, state(body), m_->nq);
    copy(d->qvel, state(body) + m_->nq, m_->nv);
    copy(d->qacc_warmstart, warmstart(body), m_->nv);
    copy(d->ctrl, rows_.controls + body * m_->nu, m_->nu);
  }

  // Keeps what positions_and_velocities() has just left of a body.
  void keep(mjData* d, int64_t body) {
    std::size_t size = 0;
    transfer_stages(m_, d, [&](const void*, std::size_t bytes) { size += bytes; });
    kept_[body].resize(size);
    std::byte* to = kept_[body].data();
    transfer_stages(m_, d, [&](const void* from, std::size_t bytes) {
      std::memcpy(to, from, bytes);
      to += bytes;
    });
  }

  // Leaves what positions_and_velocities() would, if it is kept and the body's state is that of then, to the bit; else
  // returns false.
  bool recall(mjData* d, int64_t body) {
    const std::vector<std::byte>& kept = kept_[body];
    const std::byte* from = kept.data();
    // All other bodies have been stepped since: fetch at once what would be waited for line by line.
    for (std::size_t at = 0; at < kept.size(); at += CACHE_LINE) __builtin_prefetch(from + at);
    if (kept.empty() || std::memcmp(state(body), from, (m_->nq + m_->nv) * sizeof(double)) != 0) return false;
    transfer_stages(m_, d, [&](void* to, std::size_t bytes) {
      std::memcpy(to, from, bytes);
      from += bytes;
    });
    return true;
  }

  // Writes what mj_forward says of the state under the action just taken. Only a contact exerts a force, and without one
  // nothing has to be solved.
  void derive(mjData* d, int64_t body) {
    const int forces = FORCE * m_->nbody;
    double* row = rows_.derived + body * (forces + 9 + 3 + 1);
    positions_and_velocities(m_, d);
    keep(d, body);
    if (d->ncon) {
      accelerations(m_, d);
      mj_rnePostConstraint(m_, d);
      copy(row, d->cfrc_ext, forces);
    } else {
      std::fill_n(row, forces, 0.0);
    }
    mj_subtreeVel(m_, d);
    row += forces;
    copy(row, d->xmat + 9 * TORSO, 9);
    copy(row + 9, d->subtree_com + 3 * TORSO, 3);
    row[9 + 3] = d->subtree_linvel[3 * TORSO];
  }

  const mjModel* m_;
  int substeps_;
  bool derives_;
  Rows rows_;
  std::vector<mjData*> data_;
  std::vector<std::vector<std::byte>> kept_;  // by derive(), for the next step
};

}  // namespace

extern "C" {

Stepper* stepper_open(const mjModel* model, int64_t substeps, int64_t bodies, int64_t threads, int64_t derives,
                      double* state, double* warmstart, const double* controls, double* derived) {
  const Rows rows{state, warmstart, controls, derived};
  return new Stepper(model, static_cast<int>(substeps), bodies, threads, derives, rows);
}

void stepper_close(Stepper* stepper) { delete stepper; }

void stepper_step(Stepper* stepper, const int64_t* ids, int64_t count) { stepper->each(ids, count, &Stepper::step); }

// Brings derived quantities to states that were written; for a stepper that derives.
void stepper_forward(Stepper* stepper, const int64_t* ids, int64_t count) {
  stepper->each(ids, count, &Stepper::forward);
}
}
