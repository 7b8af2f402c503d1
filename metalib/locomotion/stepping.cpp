// Steps bodies of one MuJoCo model, bit for bit as mj_step does, without what no next state and no observation needs.
//
// mj_step is: three checks, mj_forward, one integration. Left out here are
// - the checks, which only warn where automatic resets are off (bodies.py), and sensors, which nobody reads;
// - cameras, lights, flexes, tendons, islands and sleep, which mj_fwdPosition also goes through: these bodies have none, or
//   none that moves them. The inner stages of mj_RungeKutta are MuJoCo's own, and complete.
//
// A thread has one mjData for all its bodies, which stays in the processor's cache. One a body would spare ants the stages
// of positions and velocities that derive() has computed when the next step begins; fetching it takes as long. Of these
// stages the contacts alone are kept: they are few, and a quarter of a forward computation looks for them.
#include <mujoco/mujoco.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int TORSO = 1;  // the first body after the world
constexpr int FORCE = 6;  // torque and force

// The caller's memory, one row a body. State and warm start together are a body's whole state; both may be rewritten.
struct Rows {
  double* state;           // positions, velocities: nq + nv
  double* warmstart;       // the solver's: nv
  const double* controls;  // nu
  double* derived;         // contact forces 6 nbody, torso rotation 9, centre of mass 3, its x-velocity 1
};

// The contacts of a body in certain positions.
struct Contacts {
  std::vector<double> positions;
  std::vector<mjContact> found;
};

void copy(double* to, const double* from, int count) { std::memcpy(to, from, count * sizeof(double)); }

// What remains of mj_forward after these three: mj_kinematics, mj_comPos, mj_collision.
void forward_after_collision(const mjModel* m, mjData* d) {
  mj_makeM(m, d);
  mj_factorM(m, d);
  mj_makeConstraint(m, d);
  mj_transmission(m, d);
  mj_projectConstraint(m, d);
  mj_fwdVelocity(m, d);
  mj_fwdActuation(m, d);
  mj_fwdAcceleration(m, d);
  mj_fwdConstraint(m, d);
}

class Stepper {
 public:
  Stepper(const mjModel* model, int substeps, int64_t bodies, int64_t threads, bool derives, const Rows& rows)
      : m_(model), substeps_(substeps), derives_(derives), rows_(rows), data_(threads),
        contacts_(derives ? bodies : 0) {
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
      mj_kinematics(m_, d);
      mj_comPos(m_, d);
      if (!derives_ || substep || !recall(d, contacts_[body])) mj_collision(m_, d);
      forward_after_collision(m_, d);
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

  // Leaves what mj_collision would, if these contacts are those of the body's positions; else returns false.
  static bool recall(mjData* d, const Contacts& contacts) {
    const auto& [positions, found] = contacts;
    if (positions.empty() || std::memcmp(d->qpos, positions.data(), positions.size() * sizeof(double)) != 0) return false;
    d->ncon = static_cast<int>(found.size());
    d->parena = found.size() * sizeof(mjContact);  // contacts are the first in the arena
    std::copy(found.begin(), found.end(), d->contact);
    return true;
  }

  // Writes what mj_forward says of the state under the action just taken. Only a contact exerts a force, and without one
  // nothing has to be solved.
  void derive(mjData* d, int64_t body) {
    const int forces = FORCE * m_->nbody;
    double* row = rows_.derived + body * (forces + 9 + 3 + 1);
    mj_kinematics(m_, d);
    mj_comPos(m_, d);
    mj_collision(m_, d);
    contacts_[body].positions.assign(d->qpos, d->qpos + m_->nq);
    contacts_[body].found.assign(d->contact, d->contact + d->ncon);
    if (d->ncon) {
      forward_after_collision(m_, d);
      mj_rnePostConstraint(m_, d);
      copy(row, d->cfrc_ext, forces);
    } else {
      mj_comVel(m_, d);
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
  std::vector<Contacts> contacts_;  // as derive() found them
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
