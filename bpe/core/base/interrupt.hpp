// Stopping long work: when the user presses Ctrl-C, for example.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace bpe {

// Shared by the threads of one call, which poll it now and then. On the thread that made it, `poll` calls `check` every
// 50 ms. If `check` throws, that exception leaves `poll`, and `poll` throws Stopped on the other threads from then on.
class Interrupt {
 public:
    struct Stopped {};
    using Check = void (*)();
    static constexpr std::chrono::milliseconds kInterval{50};

    explicit Interrupt(Check check) : check_(check) {}
    Interrupt(const Interrupt&) = delete;
    Interrupt& operator=(const Interrupt&) = delete;

    void poll() {
        if (stopped_.load(std::memory_order_relaxed)) throw Stopped();
        if (std::this_thread::get_id() != owner_) return;
        const auto now = std::chrono::steady_clock::now();
        if (now < next_) return;
        next_ = now + kInterval;
        try {
            check_();
        } catch (...) {
            stopped_ = true;
            throw;
        }
    }

 private:
    const Check check_;
    const std::thread::id owner_ = std::this_thread::get_id();
    std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now() + kInterval;
    std::atomic<bool> stopped_ = false;
};

}  // namespace bpe
