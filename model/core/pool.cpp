#include "pool.hpp"

#include <system_error>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif
#ifdef _WIN32
#include <process.h>
#else
#include <unistd.h>
#endif

namespace model {

namespace {

std::int64_t this_process() {
#ifdef _WIN32
    return _getpid();
#else
    return getpid();
#endif
}

void pause_shortly() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#endif
}

// Waits for a condition that will soon hold, and returns whether it held within `most` pauses. After some microseconds,
// yields the processor at each pause, for the case that there are more threads than processors.
template <class Condition>
bool spin(const Condition& condition, std::size_t most) {
    constexpr std::size_t kBeforeYielding = 2000;
    for (std::size_t i = 0; i < most; ++i) {
        if (condition()) return true;
        if (i < kBeforeYielding) {
            pause_shortly();
        } else {
            std::this_thread::yield();
        }
    }
    return condition();
}

constexpr std::size_t kForever = SIZE_MAX;
// Between two steps of generation, the caller samples a token. That is short enough for the threads to spin meanwhile.
constexpr std::size_t kBetweenSteps = 4000;

}  // namespace

Pool::Pool(std::size_t threads) : wanted_(threads ? threads : 1) { start(); }

void Pool::start() {
    shared_ = std::make_unique<Shared>();
    process_ = this_process();
    try {
        shared_->helpers.reserve(wanted_ - 1);
        // Helpers read helpers.size() no earlier than in their first work, when all have been started.
        while (shared_->helpers.size() + 1 < wanted_) {
            const std::size_t thread = shared_->helpers.size() + 1;
            shared_->helpers.emplace_back([shared = shared_.get(), thread] { shared->help(thread); });
        }
    } catch (const std::system_error&) {  // the system refuses more threads
    }
}

Pool::~Pool() {
    if (process_ != this_process()) {  // after a fork, the threads belong to the parent
        (void)shared_.release();
        return;
    }
    shared_->stop = true;
    shared_->round.fetch_add(1, std::memory_order_release);
    shared_->round.notify_all();
    for (std::thread& helper : shared_->helpers) helper.join();
}

void Pool::run(const std::function<void(std::size_t)>& work) {
    const std::lock_guard lock(mutex_);
    if (process_ != this_process()) {
        (void)shared_.release();
        start();
    }
    shared_->work = &work;
    shared_->round.fetch_add(1, std::memory_order_release);
    shared_->round.notify_all();
    work(0);
    barrier();
}

void Pool::Shared::barrier(std::size_t size) {
    const std::uint32_t now = phase.load(std::memory_order_relaxed);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
        arrived.store(0, std::memory_order_relaxed);
        phase.store(now + 1, std::memory_order_release);
    } else {
        spin([&] { return phase.load(std::memory_order_acquire) != now; }, kForever);
    }
}

void Pool::Shared::help(std::size_t thread) {
    for (std::uint32_t seen = 0;;) {
        const auto changed = [&] { return round.load(std::memory_order_acquire) != seen; };
        while (!spin(changed, kBetweenSteps)) round.wait(seen, std::memory_order_acquire);
        ++seen;
        if (stop) return;
        (*work)(thread);
        barrier(helpers.size() + 1);
    }
}

}  // namespace model
