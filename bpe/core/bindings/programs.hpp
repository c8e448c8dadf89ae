// Programs of compiled patterns, from Python.
#pragma once

#include <nanobind/stl/vector.h>

#include <cstdint>
#include <vector>

#include "base/errors.hpp"
#include "bindings/python.hpp"
#include "split/program.hpp"

namespace bpe {

// Returns the program of a step of a splitter or a normalizer. The items after its name are sets and instructions.
inline Program program_of(const nb::tuple& step) {
    const auto sets = nb::cast<std::vector<Program::Set>>(step[1]);
    std::vector<std::uint32_t> instructions;
    for (const auto& instruction : nb::cast<std::vector<std::vector<std::uint32_t>>>(step[2])) {
        if (instruction.size() != 3) throw InputError("an instruction has an operation and two operands");
        instructions.insert(instructions.end(), instruction.begin(), instruction.end());
    }
    return Program(sets, instructions);
}

}  // namespace bpe
