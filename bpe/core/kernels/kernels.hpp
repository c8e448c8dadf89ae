// The parts of encoding that each kind of processor does in its own way. All ways give the same.
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
    LookUpAll look_up_all;
    const Utf8Kernel* utf8;  // null: the interpreter's own decoder does it
};

// What this machine's processor can run, the best first. The last is always "plain", in portable C++, and scans
// character by character.
std::span<const Kernel> kernels();

}  // namespace bpe
