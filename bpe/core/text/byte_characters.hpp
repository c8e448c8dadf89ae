// The characters that stand for bytes in byte-level BPE, as introduced by GPT-2's published code.
#pragma once

#include <array>
#include <cstdint>

namespace bpe {

// Printable Latin-1 characters stand for themselves, and the other bytes are numbered from U+0100 on.
inline constexpr std::array<std::uint32_t, 256> kByteCharacters = [] {
    std::array<std::uint32_t, 256> characters{};
    std::uint32_t number = 0x100;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        const bool is_printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
        characters[byte] = is_printable ? byte : number++;
    }
    return characters;
}();

inline constexpr std::uint32_t kByteCharacterLimit = 0x100 + 68;
inline constexpr std::uint16_t kNoByte = 0xFFFF;

// By code point below the limit: the byte that it stands for, or kNoByte.
inline constexpr std::array<std::uint16_t, kByteCharacterLimit> kCharacterBytes = [] {
    std::array<std::uint16_t, kByteCharacterLimit> bytes{};
    bytes.fill(kNoByte);
    for (std::uint32_t byte = 0; byte < 256; ++byte) bytes[kByteCharacters[byte]] = static_cast<std::uint16_t>(byte);
    return bytes;
}();

}  // namespace bpe
