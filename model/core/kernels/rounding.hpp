// Division and multiples of sizes, rounded up.
#pragma once

#include <cstddef>

namespace model {

constexpr std::size_t divided_up(std::size_t size, std::size_t by) { return (size + by - 1) / by; }
constexpr std::size_t rounded_up(std::size_t size, std::size_t multiple) {
    return divided_up(size, multiple) * multiple;
}

}  // namespace model
