#include "kernels/scan.hpp"

#include "kernels/kernels.hpp"
#include "kernels/rules.hpp"

namespace bpe {

std::size_t scan_plain(Pattern pattern, const std::uint8_t* bytes, std::size_t position, std::size_t size,
                       std::uint64_t* ends, std::size_t capacity) {
    const Text text{bytes, size};
    return with_rules(pattern, [&]<class Rules>() {
        std::size_t count = 0;
        while (position < size && count < capacity) {
            position = Rules::next(text, position);
            ends[count++] = position;
        }
        return count;
    });
}

std::size_t scan(Pattern pattern, const std::uint8_t* bytes, std::size_t position, std::size_t size,
                 std::uint64_t* ends, std::size_t capacity) {
    return kernels().front().scan(pattern, bytes, position, size, ends, capacity);
}

}  // namespace bpe
