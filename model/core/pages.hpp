// Large allocations.
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

// Allocates memory, uninitialised and aligned to a cache line. An allocation of 2 MiB or more is aligned to a huge page
// and made of huge pages where the system supports them. Throws std::bad_alloc.
Pages take_pages(std::size_t bytes);

}  // namespace model
