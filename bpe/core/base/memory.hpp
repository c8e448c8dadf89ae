// Large blocks of zeroed memory, and a growing array.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace bpe {

struct FreeZeroedMemory {
    std::size_t size = 0;
    bool is_mapped = false;
    void operator()(void* memory) const;
};
using ZeroedMemory = std::unique_ptr<void, FreeZeroedMemory>;

// Which pages a block of memory gets, where the system has large ones (of 2 MiB).
enum class Pages {
    kLarge,    // large ones only, as many as it takes
    kFitting,  // large ones where they are filled, and small ones for the rest
};

// Returns at least `size` zeroed bytes, aligned to a cache line. Throws std::bad_alloc.
ZeroedMemory zeroed_memory(std::size_t size, Pages pages = Pages::kLarge);

// Returns the memory beyond the first `size` bytes to the system, where the system supports it.
void shrink_memory(ZeroedMemory& memory, std::size_t size);

// An array of zeros that starts at a cache line. The system provides memory page by page as the array is touched, so a
// large array that is barely used costs little and is ready at once. Lookups are scattered over the array, so it uses
// large pages where the system has them. To clear one takes 50 to 200 us, so short-lived and small arrays should have
// `Pages::kFitting`.
template <class T>
class ZeroedArray {
 public:
    explicit ZeroedArray(std::size_t size, Pages pages = Pages::kLarge)
        : size_(size), memory_(zeroed_memory(size * sizeof(T), pages)) {}
    std::size_t size() const { return size_; }
    ZeroedArray(std::size_t size, const T& value, Pages pages = Pages::kLarge) : ZeroedArray(size, pages) {
        std::fill(data(), data() + size, value);
    }
    T& operator[](std::size_t i) { return data()[i]; }
    const T& operator[](std::size_t i) const { return data()[i]; }
    // Keeps the first `size` elements and returns the memory of the rest to the system, where the system supports it.
    void shrink(std::size_t size) {
        size_ = size;
        shrink_memory(memory_, size * sizeof(T));
    }
    T* data() { return static_cast<T*>(memory_.get()); }
    const T* data() const { return static_cast<const T*>(memory_.get()); }

 private:
    std::size_t size_;
    ZeroedMemory memory_;
};

// Asks the system for large pages within a block that has not been written to: filling ordinary pages for the first
// time takes as long as encoding a fifth of the text whose ids they hold. Does nothing where the system has none.
void use_large_pages(void* block, std::size_t size);

// A growing array. Its memory comes from realloc, which moves a large block without copying where the system can.
// Asks for large pages when it is first made large, unless it should have small ones.
template <class T, bool kSmallPages = false>
class Buffer {
 public:
    static_assert(std::is_trivially_copyable_v<T>);

    Buffer() = default;
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        Buffer(std::move(other)).swap(*this);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    std::size_t size() const { return size_; }
    std::size_t memory() const { return capacity_ * sizeof(T); }
    T* data() { return data_; }
    const T* data() const { return data_; }
    T* end() { return data_ + size_; }
    T& operator[](std::size_t i) { return data_[i]; }
    const T& operator[](std::size_t i) const { return data_[i]; }

    // Makes room for `more` values after end(). Keeps the values before it.
    void reserve(std::size_t more) {
        if (size_ + more > capacity_) grow(size_ + more);
    }
    // Adds `count` values that the caller has written at end().
    void advance(std::size_t count) { size_ += count; }
    // Leaves new values uninitialized.
    void resize(std::size_t size) {
        if (size > capacity_) grow(size);
        size_ = size;
    }
    void push(const T& value) {
        reserve(1);
        data_[size_++] = value;
    }
    void append(const T* values, std::size_t count) {
        if (!count) return;
        reserve(count);
        std::memcpy(data_ + size_, values, count * sizeof(T));
        size_ += count;
    }
    void clear() { size_ = 0; }
    // Frees the memory and its values if it has room for more than `capacity` values.
    void trim(std::size_t capacity) {
        if (capacity_ > capacity) *this = {};
    }

 private:
    void grow(std::size_t needed) {
        const std::size_t capacity = std::max({needed, capacity_ + capacity_ / 2, std::size_t{64}});
        void* data = std::realloc(static_cast<void*>(data_), capacity * sizeof(T));
        if (!data) throw std::bad_alloc();
        // A block with values may have to grow again, which the system does by copying if only a part has large pages.
        if (!kSmallPages && !size_) use_large_pages(data, capacity * sizeof(T));
        data_ = static_cast<T*>(data);
        capacity_ = capacity;
    }
    void swap(Buffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
    }

    T* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace bpe
