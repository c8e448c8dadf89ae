// Giving Python's global interpreter lock up and taking it back, for the bindings of both cores.
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <thread>

namespace bpe {

// Before 3.14, CPython ends a daemon thread that asks for the lock after the interpreter has begun to shut down. It
// calls pthread_exit, which on Linux unwinds the stack, and std::terminate aborts the process where that meets a
// function that is noexcept, such as every function that nanobind calls. This guard, around each request for the lock,
// stops the unwinding: the thread sleeps until the process ends, as CPython has it sleep from 3.14 on.
class SleepIfUnwound {
 public:
    SleepIfUnwound() = default;
    SleepIfUnwound(const SleepIfUnwound&) = delete;
    SleepIfUnwound& operator=(const SleepIfUnwound&) = delete;
    void disarm() { armed_ = false; }
    ~SleepIfUnwound() {
        while (armed_) std::this_thread::sleep_for(std::chrono::hours(1));
    }

 private:
    bool armed_ = true;
};

// Releases the lock until the end of the scope.
class ReleasedGil {
 public:
    ReleasedGil() = default;
    ReleasedGil(const ReleasedGil&) = delete;
    ReleasedGil& operator=(const ReleasedGil&) = delete;
    ~ReleasedGil() noexcept(false) {
        SleepIfUnwound guard;
        PyEval_RestoreThread(state_);
        guard.disarm();
    }

 private:
    PyThreadState* state_ = PyEval_SaveThread();
};

// Takes the lock until the end of the scope.
class AcquiredGil {
 public:
    AcquiredGil() {
        SleepIfUnwound guard;
        state_ = PyGILState_Ensure();
        guard.disarm();
    }
    AcquiredGil(const AcquiredGil&) = delete;
    AcquiredGil& operator=(const AcquiredGil&) = delete;
    ~AcquiredGil() { PyGILState_Release(state_); }

 private:
    PyGILState_STATE state_;
};

}  // namespace bpe
