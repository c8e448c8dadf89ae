// Running a function on several threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace bpe {

inline constexpr std::size_t kMostThreads = 256;

// Calls work(i) on thread i of at most `threads` and waits for all of them. The calling thread is thread 0. The system
// may refuse some of the threads, so the work must not depend on how many there are. Rethrows the first exception.
template <class Work>
void on_threads(std::size_t threads, const Work& work) {
    std::mutex mutex;
    std::exception_ptr failure;
    const auto guarded = [&](std::size_t i) {
        try {
            work(i);
        } catch (...) {
            const std::lock_guard lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    try {
        for (std::size_t i = 1; i < std::min(threads, kMostThreads); ++i) helpers.emplace_back(guarded, i);
    } catch (const std::exception&) {  // the system has no more threads to give
    }
    guarded(0);
    for (std::thread& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace bpe
