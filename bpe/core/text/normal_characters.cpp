// The steps that look at one character at a time: Lowercase, StripAccents, Nmt, ByteLevel and the parts of
// BertNormalizer; and Strip.

#include <utility>

#include "text/byte_characters.hpp"
#include "text/normal_sinks.hpp"
#include "text/normal_tables.hpp"

namespace bpe {

namespace {

constexpr std::uint32_t kDotted = 0x130;  // capital I with a dot above: its lowercase is two characters

// What becomes of a character: `count` characters, whose origin is the character.
struct Mapped {
    std::uint32_t count;
    std::uint32_t values[3];
};

constexpr Mapped kRemoved{0, {}};
constexpr Mapped as(std::uint32_t value) { return {1, {value}}; }

struct Lowercase {
    static Mapped map(std::uint32_t value) {
        if (value == kDotted) return {2, {'i', 0x307}};
        return as(value + static_cast<std::uint32_t>(lower_distance(value)));
    }
};

template <std::uint32_t kClass>
struct Without {
    static Mapped map(std::uint32_t value) { return normal_classes(value) & kClass ? kRemoved : as(value); }
};

struct Nmt {
    static Mapped map(std::uint32_t value) {
        const auto in = [value](std::uint32_t first, std::uint32_t last) { return value - first <= last - first; };
        if (value == 0x9 || value == 0xA || value == 0xC || value == 0xD) return as(' ');
        if (in(0x1, 0x1F) || value == 0x7F || value == 0x8F || value == 0x9F) return kRemoved;
        if (in(0x200B, 0x200F) || in(0x2028, 0x2029)) return as(' ');
        if (value == 0x1680 || value == 0x2581 || value == 0xFEFF || value == 0xFFFD) return as(' ');
        return as(value);
    }
};

struct BertClean {
    static Mapped map(std::uint32_t value) {
        const std::uint32_t classes = normal_classes(value);
        return classes & kBertRemoved ? kRemoved : as(classes & kBertSpace ? ' ' : value);
    }
};

struct BertChinese {
    static Mapped map(std::uint32_t value) {
        constexpr std::pair<std::uint32_t, std::uint32_t> kRanges[] = {
            {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
            {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F},
        };
        for (const auto& [first, last] : kRanges) {
            if (value >= first && value <= last) return {3, {' ', value, ' '}};
        }
        return as(value);
    }
};

template <class Map>
class CharacterStep final : public SinkStep<CharacterStep<Map>> {
 public:
    CharacterStep() {
        for (std::uint32_t value = 0; value < stays_.size(); ++value) stays_[value] = stays(value, Map::map(value));
    }

    template <class Sink>
    bool run(Bytes text, bool, Sink& sink) const {
        std::size_t done = 0;
        bool is_changed = false;
        for (std::size_t at = 0; at < text.size();) {
            if (text[at] < 0x80 && stays_[text[at]]) {
                ++at;
                continue;
            }
            const CodePoint character = code_point_at(text, at);
            const std::size_t end = at + character.length;
            if (character.value != kMalformed) {
                const Mapped mapped = Map::map(character.value);
                if (!stays(character.value, mapped)) {
                    sink.keep(text, done, at);
                    for (std::uint32_t i = 0; i < mapped.count; ++i) sink.put(mapped.values[i], at);
                    done = end;
                    is_changed = true;
                }
            }
            at = end;
        }
        if (is_changed) sink.keep(text, done, text.size());
        return is_changed;
    }

    std::optional<Neighbours> across(Neighbours neighbours) const override {
        const Mapped before = Map::map(neighbours.before), after = Map::map(neighbours.after);
        return Neighbours{before.count == 0 ? kUnknown : before.values[before.count - 1],
                          after.count == 0 ? kUnknown : after.values[0]};
    }

 private:
    static bool stays(std::uint32_t value, const Mapped& mapped) {
        return mapped.count == 1 && mapped.values[0] == value;
    }

    std::array<bool, 0x80> stays_;
};

class StripStep final : public SinkStep<StripStep> {
 public:
    StripStep(bool left, bool right) : left_(left), right_(right) {}

    template <class Sink>
    bool run(Bytes text, bool at_start, Sink& sink) const {
        std::size_t begin = 0, end = text.size();
        if (left_ && at_start) {
            while (begin < end && is_space(code_point_at(text, begin))) begin += code_point_at(text, begin).length;
        }
        if (right_) {
            while (begin < end && is_space(code_point_before(text, end))) end -= code_point_before(text, end).length;
        }
        if (end - begin == text.size()) return false;
        sink.keep(text, begin, end);
        return true;
    }

    // Beside two characters that are no white space, the left side ends, and the right side begins, as it is.
    std::optional<Neighbours> across(Neighbours neighbours) const override {
        const bool may_strip = (normal_classes(neighbours.before) | normal_classes(neighbours.after)) & kStripped;
        if (may_strip) return std::nullopt;
        return neighbours;
    }

 private:
    static bool is_space(CodePoint character) {
        return character.value != kMalformed && (normal_classes(character.value) & kStripped);
    }

    const bool left_, right_;
};

class ByteLevelStep final : public SinkStep<ByteLevelStep> {
 public:
    template <class Sink>
    bool run(Bytes text, bool, Sink& sink) const {
        std::size_t done = 0;
        for (std::size_t at = 0; at < text.size(); ++at) {
            if (kByteCharacters[text[at]] == text[at] && text[at] < 0x80) continue;
            sink.keep(text, done, at);
            sink.put(kByteCharacters[text[at]], at);
            done = at + 1;
        }
        if (done == 0) return false;
        sink.keep(text, done, text.size());
        return true;
    }

    std::optional<Neighbours> across(Neighbours neighbours) const override {
        std::uint8_t before[4], after[4];
        const std::size_t size = write_utf8(neighbours.before, before);
        write_utf8(neighbours.after, after);
        return Neighbours{kByteCharacters[before[size - 1]], kByteCharacters[after[0]]};
    }
};

}  // namespace

Step lowercase_step() { return std::make_shared<CharacterStep<Lowercase>>(); }

Step strip_accents_step() { return std::make_shared<CharacterStep<Without<kMark>>>(); }

Step strip_step(bool left, bool right) { return std::make_shared<StripStep>(left, right); }

Step nmt_step() { return std::make_shared<CharacterStep<Nmt>>(); }

Step bert_clean_step() { return std::make_shared<CharacterStep<BertClean>>(); }

Step bert_chinese_step() { return std::make_shared<CharacterStep<BertChinese>>(); }

Step bert_accents_step() { return std::make_shared<CharacterStep<Without<kNonspacing>>>(); }

Step byte_level_step() { return std::make_shared<ByteLevelStep>(); }

}  // namespace bpe
