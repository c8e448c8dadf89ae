// Decoding UTF-8 in blocks of 64 bytes, written once for the kernels that cannot load a part of a vector.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bpe {

namespace {

inline constexpr std::size_t kCharacterBlock = 64;
// Eight characters are stored at once, of which some may be surplus. The bytes that follow a block must have room for
// the surplus: 24 bytes hold at least eight characters of up to three bytes. A block also reads two bytes beyond it.
inline constexpr std::size_t kBeyondBlock = 24;

// Decodes a text. `Decoder` decodes one block after the other:
//     bool block(const std::uint8_t* text, Character*& out)   false if the text is malformed so far
//     bool complete()                                         whether the text may end here
template <class Decoder, class Character>
bool decode_blocks(const std::uint8_t* text, std::size_t size, Character* out) {
    Decoder decoder;
    std::size_t begin = 0;
    for (; size - begin >= kCharacterBlock + kBeyondBlock; begin += kCharacterBlock) {
        if (!decoder.block(text + begin, out)) return false;
    }
    // The last bytes are decoded elsewhere, with zeros behind them, each of which gives a character.
    constexpr std::size_t kLast = 2 * kCharacterBlock;
    std::uint8_t last[kLast + 32] = {};
    Character characters[kLast + 32];
    Character* end = characters;
    std::memcpy(last, text + begin, size - begin);
    for (std::size_t at = 0; at < size - begin; at += kCharacterBlock) {
        if (!decoder.block(last + at, end)) return false;
    }
    const std::size_t padding = (kLast - (size - begin)) % kCharacterBlock;
    const std::size_t count = static_cast<std::size_t>(end - characters);
    if (!decoder.complete() || count < padding) return false;
    std::memcpy(out, characters, (count - padding) * sizeof(*out));
    return true;
}

}  // namespace

}  // namespace bpe
