// A few threads that share the parts of one job after another. They touch no Python object and keep nothing between jobs.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

class Team {
public:
    // `threads` in all, at least one: the caller of `run` is one of them. The others are as nice as told (Linux alone).
    explicit Team(size_t threads, int niceness = 0) : owner_(getpid()) {
        for (size_t k = 1; k < threads; ++k)
            helpers_.emplace_back([this, niceness] {
                be_nice(niceness);
                help();
            });
    }

    ~Team() { close(); }

    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    // Ends the helpers; later jobs are done by their callers alone. May be called twice.
    void close() {
        const std::lock_guard<std::mutex> turn(turn_);
        if (helpers_.empty()) return;
        stopped_.store(true, std::memory_order_relaxed);
        publish(0);
        for (std::thread& helper : helpers_) {
            if (getpid() == owner_) helper.join();
            else helper.detach();  // a forked child has no such threads
        }
        helpers_.clear();
    }

    // work(part) for part = 0 .. parts-1, each once, on any thread; all are done when this returns. A second caller at
    // the same time, or one in a forked child, does its job alone.
    template <class Work>
    void run(size_t parts, Work& work) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (parts < 2 || !turn.owns_lock() || helpers_.empty() || getpid() != owner_) {
            for (size_t part = 0; part < parts; ++part) work(part);
            return;
        }
        call_.store([](void* context, size_t part) { (*static_cast<Work*>(context))(part); }, std::memory_order_relaxed);
        context_.store(&work, std::memory_order_relaxed);
        left_.store(parts, std::memory_order_relaxed);
        publish(parts);
        while (take_part(ticket_.load(std::memory_order_acquire))) {}
        // A helper that holds the last part may be waiting for a processor: perhaps for this one.
        for (int look = 0; left_.load(std::memory_order_acquire) != 0; ++look)
            look < short_patience ? pause() : std::this_thread::yield();
    }

private:
    // ticket: the number of the job (32 bits), then how many of its parts nobody has taken (32 bits).
    static constexpr uint64_t job_unit = uint64_t{1} << 32;
    static constexpr int patience = 2000;  // looks before a helper sleeps: some 30 microseconds
    static constexpr int short_patience = 200;

    void publish(size_t parts) {
        const uint64_t job = (ticket_.load(std::memory_order_relaxed) / job_unit + 1) * job_unit;
        ticket_.store(job | parts, std::memory_order_release);
        ticket_.notify_all();
    }

    // Does one part of the job of `seen`, if it is still the current one and has any left.
    bool take_part(uint64_t seen) {
        const uint64_t parts = seen % job_unit;
        if (parts == 0) return false;
        const auto call = call_.load(std::memory_order_relaxed);
        void* const context = context_.load(std::memory_order_relaxed);
        // LOAD-BEARING: a job cannot end, nor call and context change, between this exchange and the end of the part
        if (ticket_.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel)) {
            call(context, parts - 1);
            left_.fetch_sub(1, std::memory_order_acq_rel);
        }
        return true;
    }

    void help() {
        uint64_t seen = 0;
        while (!stopped_.load(std::memory_order_relaxed)) {
            seen = ticket_.load(std::memory_order_acquire);
            if (!take_part(seen)) wait_for_another(seen);
        }
    }

    void wait_for_another(uint64_t seen) {
        for (int look = 0; look < patience; ++look) {
            if (ticket_.load(std::memory_order_relaxed) != seen) return;
            pause();
        }
        ticket_.wait(seen, std::memory_order_acquire);
    }

    static void be_nice([[maybe_unused]] int niceness) {
#if defined(__linux__)
        if (niceness != 0) setpriority(PRIO_PROCESS, 0, niceness);  // of this thread; a sandbox may refuse it
#endif
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    const pid_t owner_;
    std::mutex turn_;
    std::vector<std::thread> helpers_;
    std::atomic<bool> stopped_{false};
    std::atomic<uint64_t> ticket_{0};
    std::atomic<void (*)(void*, size_t)> call_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<size_t> left_{0};
};

// Edges that cut begin..end into `parts` ranges of whole multiples, the last one of what is left.
struct Ranges {
    size_t begin, end, multiple, parts;

    Ranges(size_t first, size_t last, size_t step, size_t most)
        : begin(first), end(last), multiple(step), parts(blocks() < most ? blocks() : most) {
        if (parts == 0) parts = 1;
    }

    size_t edge(size_t part) const {
        const size_t place = begin + blocks() * part / parts * multiple;
        return place < end ? place : end;
    }

private:
    size_t blocks() const { return (end - begin + multiple - 1) / multiple; }
};
