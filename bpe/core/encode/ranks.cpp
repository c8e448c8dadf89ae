#include "encode/ranks.hpp"

#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

namespace bpe {

namespace {

constexpr std::uint8_t kNotBase64 = 255;

constexpr std::array<std::uint8_t, 256> base64_values() {
    std::array<std::uint8_t, 256> values{};
    values.fill(kNotBase64);
    std::uint8_t next = 0;
    for (char c = 'A'; c <= 'Z'; ++c) values[static_cast<std::uint8_t>(c)] = next++;
    for (char c = 'a'; c <= 'z'; ++c) values[static_cast<std::uint8_t>(c)] = next++;
    for (char c = '0'; c <= '9'; ++c) values[static_cast<std::uint8_t>(c)] = next++;
    values['+'] = next++;
    values['/'] = next++;
    return values;
}

constexpr std::array<std::uint8_t, 256> kBase64 = base64_values();

// Appends the bytes that base64 text encodes. Returns false if it is not base64 or lacks its padding.
bool decode_base64(Bytes text, std::vector<std::uint8_t>& bytes) {
    if (text.empty() || text.size() % 4) return false;
    const std::size_t padding = text.back() != '=' ? 0 : text[text.size() - 2] != '=' ? 1 : 2;
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < text.size() - padding; ++i) {
        const std::uint8_t value = kBase64[text[i]];
        if (value == kNotBase64) return false;
        bits = bits << 6 | value;
        if (i % 4 == 1) bytes.push_back(static_cast<std::uint8_t>(bits >> 4));
        if (i % 4 == 2) bytes.push_back(static_cast<std::uint8_t>(bits >> 2));
        if (i % 4 == 3) bytes.push_back(static_cast<std::uint8_t>(bits));
    }
    return true;
}

}  // namespace

Ranks parse_ranks(Bytes text) {
    Ranks ranks;
    ranks.bytes.reserve(text.size() / 2);
    ranks.offsets.push_back(0);
    std::size_t line_number = 0;
    const auto refuse = [&] {
        throw std::invalid_argument("line " + std::to_string(line_number) +
                                    " is not base64 followed by a space and a rank; expected a tiktoken vocabulary");
    };
    for (std::size_t begin = 0; begin < text.size();) {
        ++line_number;
        const void* newline = std::memchr(text.data() + begin, '\n', text.size() - begin);
        std::size_t end =
            newline ? static_cast<std::size_t>(static_cast<const std::uint8_t*>(newline) - text.data()) : text.size();
        const std::size_t following = end + 1;
        if (end > begin && text[end - 1] == '\r') --end;
        const auto line = text.subspan(begin, end - begin);
        begin = following;
        if (line.empty()) continue;

        const void* space = std::memchr(line.data(), ' ', line.size());
        if (!space) refuse();
        const auto split = static_cast<std::size_t>(static_cast<const std::uint8_t*>(space) - line.data());
        if (!decode_base64(line.first(split), ranks.bytes)) refuse();
        const auto digits = line.subspan(split + 1);
        if (digits.empty() || digits.size() > 9) refuse();
        Id rank = 0;
        for (const std::uint8_t digit : digits) {
            if (digit < '0' || digit > '9') refuse();
            rank = rank * 10 + (digit - '0');
        }
        ranks.offsets.push_back(ranks.bytes.size());
        ranks.ids.push_back(rank);
    }
    return ranks;
}

}  // namespace bpe
