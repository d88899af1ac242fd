// What a pass is cut into: ranges of the pieces of a claim that comes through a ring in memory which the device writes,
// or of one that is there as a whole. Threads take them one after another and wait for the pieces each for itself.
#pragma once

#include <Python.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

enum class Arrival : int { there, late, over, interrupted };

inline double steady_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Piece k of a claim holds elements k*span .. of every item, [batch, elements of the piece]. Pieces are numbered through
// all claims, modulo 2^32; piece n lies at place n mod `places`, a power of two.
struct Pieces {
    const uint8_t* memory;
    size_t size, places;    // bytes of a place, how many there are
    const uint32_t* ready;  // the number of pieces that lie there, as the device says
    uint32_t* taken;        // the number of pieces that were read: their places may be written again
    const uint32_t* over;   // not zero once nothing more will come
    uint32_t first;         // of this claim
    size_t span;            // elements of an item in a piece
    double patience;        // seconds that one may take

    const uint8_t* place(size_t piece) const { return memory + (first + piece) % places * size; }

    // What the device says is believed: a piece that is not there yet holds other words, and those are refused by the
    // check like any lie.
    bool has(size_t piece) const {
        const uint32_t wanted = first + static_cast<uint32_t>(piece) + 1;
        return static_cast<int32_t>(__atomic_load_n(ready, __ATOMIC_ACQUIRE) - wanted) >= 0;
    }

    bool is_over() const { return __atomic_load_n(over, __ATOMIC_RELAXED) != 0; }

    // So many pieces were read by every thread that reads them; then the device may write there.
    void release(size_t count) const {
        __atomic_store_n(taken, first + static_cast<uint32_t>(count), __ATOMIC_RELEASE);
    }
};

// The units of a pass, `units` of each piece, in the order of the pieces. The interpreter lock is not held.
class Schedule {
public:
    // Without `pieces` there is one piece, and it is there.
    Schedule(const Pieces* pieces, size_t count, size_t units)
        : pieces_(pieces), count_(count), units_(units), left_(count), caller_(std::this_thread::get_id()) {
        for (auto& left : left_) left.store(units, std::memory_order_relaxed);
    }

    // work(piece, unit) for one unit after another, until none is left. Called by several threads at once.
    template <class Work>
    void run(Work work) {
        double waited = 0.0;
        for (;;) {
            const size_t ticket = next_.fetch_add(1, std::memory_order_relaxed), piece = ticket / units_;
            if (piece >= count_ || !wait(piece, waited)) break;
            work(piece, ticket % units_);
            // LOAD-BEARING: the release is the last unit's, so that the device overwrites nothing that is still read
            if (left_[piece].fetch_sub(1, std::memory_order_acq_rel) == 1) release();
        }
        const std::lock_guard<std::mutex> turn(turn_);
        waited_ = std::max(waited_, waited);
    }

    Arrival arrival() const { return arrival_.load(); }
    double arrived_at() const { return arrived_at_; }
    double waited() const { return waited_; }

private:
    static constexpr uint32_t looks_between = 32;
    static constexpr double polite_after = 5e-4;  // seconds of looking before a thread sleeps between looks
    static constexpr double interrupted_after = 0.1;

    bool wait(size_t piece, double& waited) {
        if (pieces_ == nullptr || pieces_->has(piece)) return arrival() == Arrival::there;
        const double begin = steady_now();
        double asked = begin;
        for (uint32_t looks = 1; !pieces_->has(piece); ++looks) {
            if (arrival() != Arrival::there) return false;
            if (pieces_->is_over()) return fail(Arrival::over);
            if (looks % looks_between != 0) {
                pause();
                continue;
            }
            std::this_thread::yield();  // to the worker's threads, which make what is waited for
            const double now = steady_now();
            if (now - begin > pieces_->patience) return fail(Arrival::late);
            if (now - begin < polite_after) continue;
            if (now - asked > interrupted_after) {
                asked = now;
                if (std::this_thread::get_id() == caller_ && is_interrupted()) return fail(Arrival::interrupted);
            }
            std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
        waited += steady_now() - begin;
        return true;
    }

    bool fail(Arrival why) {
        Arrival none = Arrival::there;
        arrival_.compare_exchange_strong(none, why);
        return false;
    }

    void release() {
        const std::lock_guard<std::mutex> turn(turn_);
        while (released_ < count_ && left_[released_].load(std::memory_order_acquire) == 0) ++released_;
        if (released_ == count_) arrived_at_ = steady_now();
        if (pieces_ != nullptr) pieces_->release(released_);
    }

    static bool is_interrupted() {
        const PyGILState_STATE state = PyGILState_Ensure();
        const bool raised = PyErr_CheckSignals() != 0;
        PyGILState_Release(state);
        return raised;
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    const Pieces* const pieces_;
    const size_t count_, units_;
    std::vector<std::atomic<size_t>> left_;
    const std::thread::id caller_;
    std::atomic<size_t> next_{0};
    std::atomic<Arrival> arrival_{Arrival::there};
    std::mutex turn_;
    size_t released_ = 0;
    double arrived_at_ = 0.0, waited_ = 0.0;
};
