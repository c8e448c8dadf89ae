// UTF-8 -> characters of one width, as the interpreter keeps them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bpe {

struct Utf8Shape {
    std::size_t characters;  // if it is well-formed
    std::uint8_t highest;    // of its bytes
};

// All read nothing beyond the text, and write as many characters as its shape says.
struct Utf8Kernel {
    Utf8Shape (*measure)(const std::uint8_t* text, std::size_t size);
    // Where no byte is above 0xC3: one byte for each character. False if the text is not well-formed.
    bool (*narrow)(const std::uint8_t* text, std::size_t size, std::uint8_t* out);
    // Where no byte is above 0xEF: two bytes for each character. False if the text is not well-formed.
    bool (*wide)(const std::uint8_t* text, std::size_t size, std::uint16_t* out);
};

extern const Utf8Kernel kUtf8Avx512;

}  // namespace bpe
