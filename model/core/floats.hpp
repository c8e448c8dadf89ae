// Buffers of floats that start at a cache line, so that no row of a tile crosses the end of a line.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace model {

template <class T>
struct LineAllocator {
    using value_type = T;
    static constexpr std::align_val_t kLine{64};

    LineAllocator() = default;
    template <class U>
    LineAllocator(const LineAllocator<U>&) {}

    T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), kLine)); }
    void deallocate(T* memory, std::size_t) { ::operator delete(memory, kLine); }
    template <class U>
    bool operator==(const LineAllocator<U>&) const {
        return true;
    }
};

using Floats = std::vector<float, LineAllocator<float>>;

}  // namespace model
