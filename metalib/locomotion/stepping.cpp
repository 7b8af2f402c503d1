// Steps bodies of one MuJoCo model, bit for bit as mj_step does, without what no next state and no observation needs.
//
// mj_step is: three checks, mj_forward, one integration. Left out here are
// - the checks, which only warn where automatic resets are off (bodies.py), and sensors, which nobody reads;
// - cameras, lights, flexes, tendons, islands and sleep, which mj_fwdPosition also goes through: these bodies have none, or
//   none that moves them. the inner stages of mj_RungeKutta are MuJoCo's own, and complete;
// - for a body with `derived` quantities the stages of positions and velocities of a step's first forward computation: the
//   one that found contact forces after the step before has them already, and only the action has changed since.
//
// What a row of `state` and `warmstart` says is a body's whole state: it may be rewritten between calls.
#include <mujoco/mujoco.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int TORSO = 1;  // the first body after the world
constexpr int FORCE = 6;  // torque and force

// One row a body, of the caller's memory.
struct Rows {
  double* state;           // positions, velocities: nq + nv
  double* warmstart;       // the solver's: nv
  const double* controls;  // nu
  double* derived;         // contact forces 6 nbody, torso rotation 9, centre of mass 3, its x-velocity 1; or null
};

void copy(double* to, const double* from, int count) { std::memcpy(to, from, count * sizeof(double)); }

bool same(const double* one, const double* other, int count) {
  return std::memcmp(one, other, count * sizeof(double)) == 0;  // also of what is no number
}

// mj_fwdPosition and mj_fwdVelocity.
void forward_position_and_velocity(const mjModel* m, mjData* d) {
  mj_kinematics(m, d);
  mj_comPos(m, d);
  mj_makeM(m, d);
  mj_factorM(m, d);
  mj_collision(m, d);
  mj_makeConstraint(m, d);
  mj_transmission(m, d);
  mj_projectConstraint(m, d);
  mj_fwdVelocity(m, d);
}

// The rest of mj_forward: what depends on controls.
void forward_acceleration(const mjModel* m, mjData* d) {
  mj_fwdActuation(m, d);
  mj_fwdAcceleration(m, d);
  mj_fwdConstraint(m, d);
}

class Stepper {
 public:
  Stepper(const mjModel* model, int substeps, int64_t bodies, int64_t threads, const Rows& rows)
      : m_(model), substeps_(substeps), threads_(threads), rows_(rows), data_(rows.derived ? bodies : threads) {}

  ~Stepper() {
    for (mjData* d : data_) {
      if (d) mj_deleteData(d);
    }
  }

  // Calls one function for each of the bodies `ids`, or of the first `count` if null, in contiguous shares on threads.
  void each(const int64_t* ids, int64_t count, void (Stepper::*function)(int64_t body, int64_t thread)) {
    auto share = [=, this](int64_t thread) {
      const int64_t last = count * (thread + 1) / threads_;
      for (int64_t i = count * thread / threads_; i < last; ++i) (this->*function)(ids ? ids[i] : i, thread);
    };
    std::vector<std::jthread> others;  // which are joined at the end of this block
    for (int64_t thread = 1; thread < threads_; ++thread) others.emplace_back(share, thread);
    share(0);
  }

  void step(int64_t body, int64_t thread) {
    mjData* d = data(body, thread);
    bool current = load(d, body);
    for (int substep = 0; substep < substeps_; ++substep) {
      if (!current) forward_position_and_velocity(m_, d);
      forward_acceleration(m_, d);
      m_->opt.integrator == mjINT_RK4 ? mj_RungeKutta(m_, d, 4) : mj_Euler(m_, d);
      current = false;
    }
    copy(state(body), d->qpos, m_->nq);
    copy(state(body) + m_->nq, d->qvel, m_->nv);
    copy(warmstart(body), d->qacc_warmstart, m_->nv);
    if (rows_.derived) derive(d, body);
  }

  void forward(int64_t body, int64_t thread) {
    mjData* d = data(body, thread);
    load(d, body);
    if (rows_.derived) derive(d, body);
  }

 private:
  double* state(int64_t body) { return rows_.state + body * (m_->nq + m_->nv); }
  double* warmstart(int64_t body) { return rows_.warmstart + body * m_->nv; }

  // A thread's one mjData stays in its cache, which 800 of them would not: a fifth of a half-cheetah's step. Bodies with
  // derived quantities have one each all the same: it holds the stages that the next step starts from.
  mjData* data(int64_t body, int64_t thread) {
    mjData*& d = data_[rows_.derived ? body : thread];
    if (!d) {
      d = mj_makeData(m_);
      forward_position_and_velocity(m_, d);  // so that the stages are always those of the positions beside them
    }
    return d;
  }

  // Takes a body's state over. Returns whether the stages of position and velocity are those of this state.
  bool load(mjData* d, int64_t body) {
    const double *qpos = state(body), *qvel = qpos + m_->nq;
    copy(d->ctrl, rows_.controls + body * m_->nu, m_->nu);
    copy(d->qacc_warmstart, warmstart(body), m_->nv);
    if (rows_.derived && same(d->qpos, qpos, m_->nq) && same(d->qvel, qvel, m_->nv)) return true;
    copy(d->qpos, qpos, m_->nq);
    copy(d->qvel, qvel, m_->nv);
    return false;
  }

  // Writes what mj_forward says of the state under the action just taken; without a contact there is no force to solve for.
  void derive(mjData* d, int64_t body) {
    const int forces = FORCE * m_->nbody;
    double* row = rows_.derived + body * (forces + 9 + 3 + 1);
    forward_position_and_velocity(m_, d);
    mj_subtreeVel(m_, d);
    if (d->ncon) {
      forward_acceleration(m_, d);
      mj_rnePostConstraint(m_, d);
      copy(row, d->cfrc_ext, forces);
    } else {
      std::fill_n(row, forces, 0.0);
    }
    copy(row += forces, d->xmat + 9 * TORSO, 9);
    copy(row += 9, d->subtree_com + 3 * TORSO, 3);
    row[3] = d->subtree_linvel[3 * TORSO];
  }

  const mjModel* m_;
  int substeps_;
  int64_t threads_;
  Rows rows_;
  std::vector<mjData*> data_;
};

}  // namespace

extern "C" {

Stepper* stepper_open(const mjModel* model, int64_t substeps, int64_t bodies, int64_t threads, double* state,
                      double* warmstart, const double* controls, double* derived) {
  return new Stepper(model, static_cast<int>(substeps), bodies, threads, {state, warmstart, controls, derived});
}

void stepper_close(Stepper* stepper) { delete stepper; }

void stepper_step(Stepper* stepper, const int64_t* ids, int64_t count) { stepper->each(ids, count, &Stepper::step); }

// Computes derived quantities of states that were written by hand.
void stepper_forward(Stepper* stepper, const int64_t* ids, int64_t count) {
  stepper->each(ids, count, &Stepper::forward);
}
}
