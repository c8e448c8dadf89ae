#include "base/memory.hpp"

#include <cstdint>
#include <cstring>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace bpe {

#ifdef __linux__

constexpr std::size_t kLargePage = std::size_t{2} << 20;

// Maps one large page more than needed, then unmaps what lies before the first large page's edge and behind the block.
ZeroedMemory zeroed_memory(std::size_t size) {
    if (size == 0) return nullptr;
    size = (size + kLargePage - 1) / kLargePage * kLargePage;
    void* mapped =
        mmap(nullptr, size + kLargePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    auto* begin = static_cast<char*>(mapped);
    const std::size_t before = (kLargePage - reinterpret_cast<std::uintptr_t>(begin) % kLargePage) % kLargePage;
    if (before) munmap(begin, before);
    munmap(begin + before + size, kLargePage - before);
    madvise(begin + before, size, MADV_HUGEPAGE);
    return ZeroedMemory(begin + before, FreeZeroedMemory{size});
}

void FreeZeroedMemory::operator()(void* memory) const { munmap(memory, size); }

void shrink_memory(ZeroedMemory& memory, std::size_t size) {
    const std::size_t kept = std::max((size + kLargePage - 1) / kLargePage, std::size_t{1}) * kLargePage;
    if (kept >= memory.get_deleter().size) return;
    munmap(static_cast<char*>(memory.get()) + kept, memory.get_deleter().size - kept);
    memory.get_deleter().size = kept;
}

void use_large_pages(void* block, std::size_t size) {
    if (size < 2 * kLargePage) return;
    const auto begin = (reinterpret_cast<std::uintptr_t>(block) + kLargePage - 1) / kLargePage * kLargePage;
    const auto end = (reinterpret_cast<std::uintptr_t>(block) + size) / kLargePage * kLargePage;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

#else

constexpr std::align_val_t kCacheLine{64};

ZeroedMemory zeroed_memory(std::size_t size) {
    return ZeroedMemory(std::memset(::operator new(size, kCacheLine), 0, size), FreeZeroedMemory{size});
}

void FreeZeroedMemory::operator()(void* memory) const { ::operator delete(memory, kCacheLine); }

void shrink_memory(ZeroedMemory&, std::size_t) {}

void use_large_pages(void*, std::size_t) {}

#endif

}  // namespace bpe
