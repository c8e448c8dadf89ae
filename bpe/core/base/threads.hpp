// Running a function on several threads.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/interrupt.hpp"

namespace bpe {

inline constexpr std::size_t kMostThreads = 256;

// Calls work(i) on thread i of at most `threads` and waits for all of them. The calling thread is thread 0. The system
// may refuse some of the threads, so the work must not depend on how many there are. Rethrows the first exception. The
// calling thread polls `interrupt`, if there is one, also while it waits for the others.
template <class Work>
void on_threads(std::size_t threads, const Work& work, Interrupt* interrupt = nullptr) {
    std::mutex mutex;
    std::condition_variable done;
    std::size_t running = 0;
    std::exception_ptr failure;
    const auto guarded = [&](const auto& call) {
        try {
            call();
        } catch (const Interrupt::Stopped&) {  // the calling thread has the exception
        } catch (...) {
            const std::lock_guard lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    const auto help = [&](std::size_t i) {
        guarded([&] { work(i); });
        const std::lock_guard lock(mutex);
        --running;
        done.notify_one();
    };
    std::vector<std::thread> helpers;
    try {
        for (std::size_t i = 1; i < std::min(threads, kMostThreads); ++i) {
            {
                const std::lock_guard lock(mutex);
                ++running;
            }
            helpers.emplace_back(help, i);
        }
    } catch (const std::exception&) {  // the system has no more threads to give
        const std::lock_guard lock(mutex);
        --running;
    }
    guarded([&] { work(0); });
    if (interrupt) {
        std::unique_lock lock(mutex);
        while (!done.wait_for(lock, Interrupt::kInterval, [&] { return running == 0; })) {
            lock.unlock();
            guarded([&] { interrupt->poll(); });
            lock.lock();
        }
    }
    for (std::thread& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace bpe
