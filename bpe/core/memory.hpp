// Large blocks of zeros from the system.
#pragma once

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

}  // namespace bpe
