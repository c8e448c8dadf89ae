// Threads for many short steps: within one piece of work they meet at a barrier a hundred times, in less time than the
// system takes to wake one up once.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace model {

class Pool {
 public:
    // Of so many threads, of which the caller of run() is the first; of fewer where the system gives no more.
    explicit Pool(std::size_t threads);
    ~Pool();
    Pool(const Pool&) = delete;

    // Calls work(thread) on all threads and waits for them. It must not throw. One caller at a time is served. In a
    // process that was forked, the threads are started anew.
    void run(const std::function<void(std::size_t)>& work);

    // Within work: how many threads take part, and where all of them wait for the last.
    std::size_t size() const { return shared_->helpers.size() + 1; }
    void barrier() { shared_->barrier(size()); }

 private:
    struct Shared {
        std::vector<std::thread> helpers;
        const std::function<void(std::size_t)>* work = nullptr;
        alignas(64) std::atomic<std::uint32_t> round = 0;  // of work
        alignas(64) std::atomic<std::uint32_t> arrived = 0;
        alignas(64) std::atomic<std::uint32_t> phase = 0;  // of the barrier
        bool stop = false;

        void barrier(std::size_t size);
        void help(std::size_t thread);
    };

    void start();

    const std::size_t wanted_;
    std::mutex mutex_;
    std::unique_ptr<Shared> shared_;
    std::int64_t process_ = 0;
};

}  // namespace model
