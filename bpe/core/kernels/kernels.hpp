// The parts of encoding that have an implementation for each kind of processor. All implementations give the same
// result.
#pragma once

#include <span>

#include "kernels/characters.hpp"
#include "kernels/front.hpp"
#include "kernels/lanes.hpp"
#include "kernels/scan.hpp"

namespace bpe {

struct Kernel {
    const char* name;
    Scan scan;
    Probe probe;
    Write write;
    MergeRound merge_round;
    const Utf8Kernel* utf8;  // null: use the interpreter's own decoder
};

// Returns the kernels that this machine's processor supports, the fastest first. The last is always "plain", which is
// portable C++ and scans character by character.
std::span<const Kernel> kernels();

// Returns the kernel that the environment variable BPE_KERNEL names or, if it is not set, the fastest. Throws
// InputError if this machine's processor does not support the named kernel.
const Kernel& chosen_kernel();

// Scans with the chosen kernel.
std::size_t scan(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size, std::uint64_t* ends,
                 std::size_t capacity);

}  // namespace bpe
