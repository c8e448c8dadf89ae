// Large blocks of zeros from the system.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>

namespace bpe {

struct FreeZeroedMemory {
    std::size_t size = 0;
    void operator()(void* memory) const;
};
using ZeroedMemory = std::unique_ptr<void, FreeZeroedMemory>;

// Throws std::bad_alloc.
ZeroedMemory zeroed_memory(std::size_t size);

// An array of zeros from the system, which gives memory only once it is touched: what is used little takes little of
// it, and starts at once. In large pages where there are such, since lookups go everywhere; it begins at a cache line.
template <class T>
class ZeroedArray {
 public:
    explicit ZeroedArray(std::size_t size) : size_(size), memory_(zeroed_memory(size * sizeof(T))) {}
    std::size_t size() const { return size_; }
    ZeroedArray(std::size_t size, const T& value) : ZeroedArray(size) { std::fill(data(), data() + size, value); }
    T& operator[](std::size_t i) { return data()[i]; }
    const T& operator[](std::size_t i) const { return data()[i]; }
    T* data() { return static_cast<T*>(memory_.get()); }
    const T* data() const { return static_cast<const T*>(memory_.get()); }

 private:
    std::size_t size_;
    ZeroedMemory memory_;
};

}  // namespace bpe
