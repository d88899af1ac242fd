// What a pass is cut into: ranges of the pieces of a claim that comes through a ring in memory which the device writes,
// of words that leave through one which it reads, or of what is there as a whole. Threads take them one after another
// and wait for the pieces, and for their places, each for itself.
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

// How the pieces went. late: one did not come in time; over: they end; full: a place was not read in time.
enum class Arrival : int { there, late, over, interrupted, full };

inline double steady_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A ring, and a claim or the words of an ask on their way through it. Piece k holds elements k*span .. of every item,
// [batch, elements of the piece]. Pieces are numbered through all that ever went there, modulo 2^32; piece n lies at place
// n mod `places`, a power of two.
struct Pieces {
    uint8_t* memory;
    size_t size, places;   // bytes of a place, how many there are
    uint32_t* ready;       // how many pieces were written: the device counts those of claims, this side those of words
    uint32_t* taken;       // how many were read, so that their places may be written again: the other side counts
    const uint32_t* over;  // not zero once nothing more will come, or be read
    uint32_t first;        // of this claim, or of these words
    size_t span;           // elements of an item in a piece
    double patience;       // seconds that one may take

    uint8_t* place(size_t piece) const { return memory + (first + piece) % places * size; }

    // What the device says is believed: a piece that is not there yet holds other words, and those are refused by the
    // check like any lie.
    bool has(size_t piece) const { return reached(ready, number(piece) + 1); }

    // Whether the words before in this place were read, as the device says: else it computes with other words.
    bool has_room(size_t piece) const { return reached(taken, number(piece) + 1 - static_cast<uint32_t>(places)); }

    bool is_over() const { return __atomic_load_n(over, __ATOMIC_RELAXED) != 0; }

    // So many pieces were read by every thread that reads them; then the device may write there.
    void release(size_t count) const { __atomic_store_n(taken, number(count), __ATOMIC_RELEASE); }

    // So many pieces were written by every thread that writes them; then the device may read there.
    void publish(size_t count) const { __atomic_store_n(ready, number(count), __ATOMIC_RELEASE); }

private:
    uint32_t number(size_t piece) const { return first + static_cast<uint32_t>(piece); }

    static bool reached(const uint32_t* counter, uint32_t wanted) {
        return static_cast<int32_t>(__atomic_load_n(counter, __ATOMIC_ACQUIRE) - wanted) >= 0;
    }
};

// The units of a pass, `units` of each piece, in the order of the pieces. The interpreter lock is not held.
class Schedule {
public:
    // Without `coming` all that is read is there; without `going` nothing leaves in pieces. `count` pieces, of both alike.
    Schedule(const Pieces* coming, const Pieces* going, size_t count, size_t units)
        : coming_(coming),
          going_(going),
          count_(count),
          units_(units),
          left_(count),
          caller_(std::this_thread::get_id()) {
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
            // LOAD-BEARING: the release is the last unit's, so that the device overwrites nothing that is still read,
            // and reads nothing that is still written
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

    // For the piece to come, and for the place of the one that leaves.
    bool wait(size_t piece, double& waited) {
        return (coming_ == nullptr || wait_until(*coming_, Arrival::late, waited, [&] { return coming_->has(piece); })) &&
               (going_ == nullptr || wait_until(*going_, Arrival::full, waited, [&] { return going_->has_room(piece); })) &&
               arrival() == Arrival::there;
    }

    template <class Condition>
    bool wait_until(const Pieces& pieces, Arrival otherwise, double& waited, Condition is_met) {
        if (is_met()) return true;
        const double begin = steady_now();
        double asked = begin;
        for (uint32_t looks = 1; !is_met(); ++looks) {
            if (arrival() != Arrival::there) return false;
            if (pieces.is_over()) return fail(Arrival::over);
            if (looks % looks_between != 0) {
                pause();
                continue;
            }
            std::this_thread::yield();  // to the worker's threads, which make what is waited for
            const double now = steady_now();
            if (now - begin > pieces.patience) return fail(otherwise);
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
        if (going_ != nullptr) going_->publish(released_);
        if (coming_ != nullptr) coming_->release(released_);
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

    const Pieces *const coming_, *const going_;
    const size_t count_, units_;
    std::vector<std::atomic<size_t>> left_;
    const std::thread::id caller_;
    std::atomic<size_t> next_{0};
    std::atomic<Arrival> arrival_{Arrival::there};
    std::mutex turn_;
    size_t released_ = 0;
    double arrived_at_ = 0.0, waited_ = 0.0;
};
