// Large pieces of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace model {

struct FreePages {
    std::align_val_t alignment{};
    void operator()(std::uint8_t* memory) const { ::operator delete[](memory, alignment); }
};
using Pages = std::unique_ptr<std::uint8_t[], FreePages>;

// Begins at a line of the cache; what is large, at a large page, and is of such pages where the system has them.
// Nothing is set. Throws std::bad_alloc.
Pages take_pages(std::size_t bytes);

}  // namespace model
