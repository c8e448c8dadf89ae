// Decoding UTF-8 into the fixed-width characters of a Python str.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bpe {

struct Utf8Shape {
    std::size_t characters;  // meaningful only if the text is well-formed
    std::uint8_t highest;    // the highest byte
};

// These functions read nothing beyond the text, and `narrow` and `wide` write exactly as many characters as `measure`
// counts. `narrow` and `wide` return false if the text is malformed.
struct Utf8Kernel {
    Utf8Shape (*measure)(const std::uint8_t* text, std::size_t size);
    // Writes one byte for each character. No byte of the text may be above 0xC3.
    bool (*narrow)(const std::uint8_t* text, std::size_t size, std::uint8_t* out);
    // Writes two bytes for each character. No byte of the text may be above 0xEF.
    bool (*wide)(const std::uint8_t* text, std::size_t size, std::uint16_t* out);
};

extern const Utf8Kernel kUtf8Avx2;
extern const Utf8Kernel kUtf8Avx512;
extern const Utf8Kernel kUtf8Neon;

}  // namespace bpe
