// Work on several threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace bpe {

inline constexpr std::size_t kMostThreads = 256;

// Calls work(i) on thread i of at most `threads`, of which the calling one is the first, and waits for all. Where the
// system gives fewer threads, fewer work; so what there is to do must not depend on their number. The first exception
// is thrown again.
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
    } catch (const std::exception&) {  // no more threads to be had
    }
    guarded(0);
    for (std::thread& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace bpe
