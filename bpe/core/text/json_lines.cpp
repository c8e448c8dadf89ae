#include "text/json_lines.hpp"

#include <array>
#include <bit>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "text/utf8.hpp"

namespace bpe {
namespace {

constexpr int kDeepest = 64;                    // levels of nesting
constexpr std::ptrdiff_t kLongestNumber = 300;  // characters; Python refuses integers of a few thousand digits

// The character that a letter after a backslash stands for, or 0 if it is no escape.
constexpr std::array<std::uint8_t, 256> kEscapes = [] {
    std::array<std::uint8_t, 256> table{};
    constexpr std::string_view letters = "\"\\/bfnrt", characters = "\"\\/\b\f\n\r\t";
    for (std::size_t i = 0; i < letters.size(); ++i) {
        table[static_cast<std::uint8_t>(letters[i])] = static_cast<std::uint8_t>(characters[i]);
    }
    return table;
}();

// Parses one line from left to right. Each function returns false if the line does not continue with what it parses.
class JsonLine {
 public:
    JsonLine(const std::uint8_t* begin, const std::uint8_t* end, std::uint8_t* out)
        : at_(begin), end_(end), out_(out) {}

    // Writes the string under the key to `out` and returns it.
    std::optional<Bytes> text(std::string_view key) {
        std::optional<Bytes> found;
        const auto member = [&](std::string_view name) {
            if (name != key) return value(1);
            const std::uint8_t* begin = out_;
            if (!take('"') || !copied_string()) return false;
            found.emplace(begin, out_);
            return true;
        };
        space();
        if (!take('{') || !members(member)) return std::nullopt;
        space();
        return at_ == end_ ? found : std::nullopt;
    }

    std::uint8_t* out() const { return out_; }

 private:
    void space() {
        while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r' || *at_ == '\n')) ++at_;
    }

    bool take(char expected) {
        if (at_ == end_ || *at_ != static_cast<std::uint8_t>(expected)) return false;
        ++at_;
        return true;
    }

    bool take(std::string_view expected) {
        if (static_cast<std::size_t>(end_ - at_) < expected.size()) return false;
        if (std::memcmp(at_, expected.data(), expected.size()) != 0) return false;
        at_ += expected.size();
        return true;
    }

    // Parses the rest of an object. Calls `member` with each name; it parses the value.
    template <class Member>
    bool members(const Member& member) {
        space();
        if (take('}')) return true;
        do {
            space();
            std::uint8_t* const begin = out_;
            if (!take('"') || !copied_string()) return false;
            const std::string_view name(reinterpret_cast<const char*>(begin), static_cast<std::size_t>(out_ - begin));
            out_ = begin;
            space();
            if (!take(':')) return false;
            space();
            if (!member(name)) return false;
            space();
        } while (take(','));
        return take('}');
    }

    bool value(int depth) {
        if (at_ == end_ || depth == kDeepest) return false;
        switch (*at_) {
            case '"': ++at_; return string();
            case '{': ++at_; return members([&](std::string_view) { return value(depth + 1); });
            case '[': ++at_; return array(depth);
            case 't': return take("true");
            case 'f': return take("false");
            case 'n': return take("null");
            default: return number();
        }
    }

    bool array(int depth) {
        space();
        if (take(']')) return true;
        do {
            space();
            if (!value(depth + 1)) return false;
            space();
        } while (take(','));
        return take(']');
    }

    bool digits() {
        const std::uint8_t* begin = at_;
        while (at_ < end_ && *at_ >= '0' && *at_ <= '9') ++at_;
        return at_ > begin;
    }

    bool number() {
        const std::uint8_t* begin = at_;
        take('-');
        if (!take('0') && !digits()) return false;
        if (take('.') && !digits()) return false;
        if (take('e') || take('E')) {
            if (!take('+')) take('-');
            if (!digits()) return false;
        }
        return at_ - begin <= kLongestNumber;
    }

    // Skips to the next quotation mark, backslash or control character. With `copy`, copies what it skips to `out` and
    // may overwrite up to 15 bytes behind it.
    template <bool copy = false>
    void plain_run() {
#ifdef __SSE2__
        const __m128i quote_mark = _mm_set1_epi8('"'), backslash_mark = _mm_set1_epi8('\\'),
                      control = _mm_set1_epi8(0x1F);
        while (end_ - at_ >= 16) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at_));
            if constexpr (copy) _mm_storeu_si128(reinterpret_cast<__m128i*>(out_), bytes);
            const __m128i marks =
                _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, quote_mark), _mm_cmpeq_epi8(bytes, backslash_mark)),
                             _mm_cmpeq_epi8(_mm_min_epu8(bytes, control), bytes));
            const auto found = static_cast<unsigned>(_mm_movemask_epi8(marks));
            const int length = found == 0 ? 16 : std::countr_zero(found);
            at_ += length;
            if constexpr (copy) out_ += length;
            if (found != 0) return;
        }
#endif
        constexpr std::uint64_t kOnes = 0x0101010101010101;
        constexpr std::uint64_t kHigh = 0x8080808080808080;
        if constexpr (std::endian::native == std::endian::little) {
            while (end_ - at_ >= 8) {
                std::uint64_t word;
                std::memcpy(&word, at_, 8);
                if constexpr (copy) std::memcpy(out_, &word, 8);
                const std::uint64_t quote = word ^ (kOnes * '"');
                const std::uint64_t backslash = word ^ (kOnes * '\\');
                // Marks bytes that are zero in the first two words or below 0x20 in the third. The first mark is exact;
                // later ones may be wrong.
                const std::uint64_t marks = (((quote - kOnes) & ~quote) | ((backslash - kOnes) & ~backslash) |
                                             ((word - kOnes * 0x20) & ~word)) &
                                            kHigh;
                const int length = marks == 0 ? 8 : std::countr_zero(marks) / 8;
                at_ += length;
                if constexpr (copy) out_ += length;
                if (marks != 0) return;
            }
        }
        for (; at_ < end_ && *at_ != '"' && *at_ != '\\' && *at_ >= 0x20; ++at_) {
            if constexpr (copy) *out_++ = *at_;
        }
    }

    // Parses the four digits of a \u escape.
    std::optional<std::uint32_t> code_unit() {
        if (end_ - at_ < 4) return std::nullopt;
        std::uint32_t unit = 0;
        for (int i = 0; i < 4; ++i) {
            const std::uint8_t digit = *at_++;
            const std::uint8_t lower = digit | 0x20;
            if (digit >= '0' && digit <= '9') {
                unit = unit << 4 | (digit - '0');
            } else if (lower >= 'a' && lower <= 'f') {
                unit = unit << 4 | (lower - 'a' + 10);
            } else {
                return std::nullopt;
            }
        }
        return unit;
    }

    // Parses the rest of a string and drops its content.
    bool string() {
        for (;;) {
            plain_run();
            if (take('"')) return true;
            if (!take('\\') || at_ == end_) return false;
            const std::uint8_t escape = *at_++;
            if (escape == 'u' ? !code_unit() : !kEscapes[escape]) return false;
        }
    }

    // Parses the rest of a string and writes its content to `out`.
    bool copied_string() {
        for (;;) {
            plain_run<true>();
            if (take('"')) return true;
            if (!take('\\') || at_ == end_) return false;
            const std::uint8_t escape = *at_++;
            if (escape == 'u') {
                if (!copied_character()) return false;
            } else {
                if (!kEscapes[escape]) return false;
                *out_++ = kEscapes[escape];
            }
        }
    }

    // Parses the rest of a \u escape, with the low surrogate after a high one. Rejects lone surrogates.
    bool copied_character() {
        std::optional<std::uint32_t> unit = code_unit();
        if (!unit) return false;
        std::uint32_t code = *unit;
        if (code >= 0xD800 && code < 0xE000) {
            if (code >= 0xDC00 || !take("\\u") || !(unit = code_unit()) || *unit < 0xDC00 || *unit >= 0xE000) {
                return false;
            }
            code = 0x10000 + ((code - 0xD800) << 10) + (*unit - 0xDC00);
        }
        const auto put = [&](std::uint32_t byte) { *out_++ = static_cast<std::uint8_t>(byte); };
        if (code < 0x80) {
            put(code);
        } else if (code < 0x800) {
            put(0xC0 | code >> 6);
            put(0x80 | (code & 0x3F));
        } else if (code < 0x10000) {
            put(0xE0 | code >> 12);
            put(0x80 | (code >> 6 & 0x3F));
            put(0x80 | (code & 0x3F));
        } else {
            put(0xF0 | code >> 18);
            put(0x80 | (code >> 12 & 0x3F));
            put(0x80 | (code >> 6 & 0x3F));
            put(0x80 | (code & 0x3F));
        }
        return true;
    }

    const std::uint8_t* at_;
    const std::uint8_t* end_;
    std::uint8_t* out_;
};

}  // namespace

JsonTexts texts_of_json_lines(Bytes lines, std::string_view key) {
    JsonTexts result;
    // No string is longer than its JSON, even if a key repeats. The 16 bytes more are for `plain_run`.
    result.bytes = std::make_unique_for_overwrite<std::uint8_t[]>(lines.size() + 16);
    std::uint8_t* out = result.bytes.get();
    const bool all_valid = invalid_utf8(lines) == lines.size();
    const std::uint8_t* end = lines.data() + lines.size();
    for (const std::uint8_t* begin = lines.data(); begin < end;) {
        const auto* newline = static_cast<const std::uint8_t*>(std::memchr(begin, '\n', end - begin));
        const std::uint8_t* line_end = newline ? newline : end;
        const Bytes bytes(begin, line_end);
        JsonLine line(begin, line_end, out);
        result.lines.emplace_back();
        if (all_valid || invalid_utf8(bytes) == bytes.size()) result.lines.back() = line.text(key);
        if (result.lines.back()) out = line.out();
        begin = line_end + 1;
    }
    return result;
}

}  // namespace bpe
