#include "base/memory.hpp"

#include <cstdint>
#include <cstring>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace bpe {

namespace {

constexpr std::align_val_t kCacheLine{64};

ZeroedMemory from_heap(std::size_t size) {
    return ZeroedMemory(std::memset(::operator new(size, kCacheLine), 0, size), FreeZeroedMemory{size});
}

}  // namespace

#ifdef __linux__

namespace {

constexpr std::size_t kLargePage = std::size_t{2} << 20;
constexpr std::size_t kSmallPage = std::size_t{4} << 10;  // or larger: the system rounds up
constexpr std::size_t kMostFromHeap = std::size_t{1} << 16;

std::size_t rounded_up(std::size_t size, std::size_t page) { return (size + page - 1) / page * page; }

char* mapped(std::size_t size) {
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return static_cast<char*>(memory);
}

}  // namespace

// For large pages, maps one more than needed, then unmaps what lies before the first one's edge and behind the block.
ZeroedMemory zeroed_memory(std::size_t size, Pages pages) {
    if (size == 0) return nullptr;
    if (pages == Pages::kFitting && size <= kMostFromHeap) return from_heap(size);
    size = rounded_up(size, pages == Pages::kLarge ? kLargePage : kSmallPage);
    if (size < kLargePage) return ZeroedMemory(mapped(size), FreeZeroedMemory{size, true});
    char* begin = mapped(size + kLargePage);
    const std::size_t before = (kLargePage - reinterpret_cast<std::uintptr_t>(begin) % kLargePage) % kLargePage;
    if (before) munmap(begin, before);
    munmap(begin + before + size, kLargePage - before);
    madvise(begin + before, size, MADV_HUGEPAGE);
    return ZeroedMemory(begin + before, FreeZeroedMemory{size, true});
}

void FreeZeroedMemory::operator()(void* memory) const {
    is_mapped ? static_cast<void>(munmap(memory, size)) : ::operator delete(memory, kCacheLine);
}

void shrink_memory(ZeroedMemory& memory, std::size_t size) {
    FreeZeroedMemory& block = memory.get_deleter();
    const std::size_t kept = std::max(rounded_up(size, kLargePage), kLargePage);
    if (!block.is_mapped || kept >= block.size) return;
    munmap(static_cast<char*>(memory.get()) + kept, block.size - kept);
    block.size = kept;
}

void use_large_pages(void* block, std::size_t size) {
    if (size < 2 * kLargePage) return;
    const auto begin = (reinterpret_cast<std::uintptr_t>(block) + kLargePage - 1) / kLargePage * kLargePage;
    const auto end = (reinterpret_cast<std::uintptr_t>(block) + size) / kLargePage * kLargePage;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

#else

ZeroedMemory zeroed_memory(std::size_t size, Pages) { return from_heap(size); }

void FreeZeroedMemory::operator()(void* memory) const { ::operator delete(memory, kCacheLine); }

void shrink_memory(ZeroedMemory&, std::size_t) {}

void use_large_pages(void*, std::size_t) {}

#endif

}  // namespace bpe
