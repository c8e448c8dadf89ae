// A pool of threads for many short steps. Within one piece of work, the threads meet at a barrier a hundred times in
// less time than the system takes to wake up one thread.
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
    // Starts threads - 1 threads: the caller of run() is the first thread. Starts fewer where the system refuses more.
    explicit Pool(std::size_t threads);
    ~Pool();
    Pool(const Pool&) = delete;

    // Calls work(thread) on all threads and waits until all return. `work` must not throw. Serves one caller at a time.
    // Starts new threads in a forked process.
    void run(const std::function<void(std::size_t)>& work);

    // The number of threads, and a barrier where all of them wait for the last. Call barrier() from within `work` only.
    std::size_t size() const { return shared_->helpers.size() + 1; }
    void barrier() { shared_->barrier(size()); }

 private:
    struct Shared {
        std::vector<std::thread> helpers;
        const std::function<void(std::size_t)>* work = nullptr;
        alignas(64) std::atomic<std::uint32_t> round = 0;  // counts pieces of work
        alignas(64) std::atomic<std::uint32_t> arrived = 0;
        alignas(64) std::atomic<std::uint32_t> phase = 0;  // counts barriers
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
