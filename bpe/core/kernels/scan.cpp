#include "kernels/scan.hpp"

#include "kernels/rules.hpp"

namespace bpe {

std::size_t scan_plain(Pattern pattern, const std::uint8_t* bytes, std::size_t position, std::size_t size,
                       std::uint64_t* ends, std::size_t capacity) {
    const ScannedText text{bytes, size};
    return with_rules(pattern, [&]<class Rules>() {
        std::size_t count = 0;
        while (position < size && count < capacity) {
            position = Rules::next(text, position);
            ends[count++] = position;
        }
        return count;
    });
}

}  // namespace bpe
