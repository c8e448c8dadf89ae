// Precompiled: the map of sentencepiece's normalization, as tokenizers applies it.

#include <array>
#include <cstring>

#include "text/character_map.hpp"
#include "text/normal_sinks.hpp"
#include "text/normal_tables.hpp"

namespace bpe {

namespace {

// Finds the ends of grapheme clusters (Unicode Standard Annex 29, extended).
class ClusterRules {
 public:
    // Returns whether the next character belongs to the cluster of the characters before it, of which there are some.
    bool joins(CodePoint next) {
        const Cluster kind = next.value == kMalformed ? Cluster::kControl : cluster_of(next.value);
        const Conjunct conjunct = next.value == kMalformed ? Conjunct::kNone : conjunct_of(next.value);
        const bool is_joined = is_joined_to_last(next.value, kind, conjunct);
        // GB11: a picture, marks and a joiner.
        joins_picture_ = after_picture_ && kind == Cluster::kJoiner;
        after_picture_ = kind == Cluster::kPicture || (after_picture_ && kind == Cluster::kExtend);
        // GB9c: a consonant, and marks of which one is a linker.
        if (conjunct == Conjunct::kConsonant) {
            after_consonant_ = true;
            is_linked_ = false;
        } else if (conjunct == Conjunct::kNone) {
            after_consonant_ = is_linked_ = false;
        } else if (conjunct == Conjunct::kLinker) {
            is_linked_ = after_consonant_;
        }
        last_ = kind;
        last_value_ = next.value;
        return is_joined;
    }

 private:
    bool is_joined_to_last(std::uint32_t value, Cluster kind, Conjunct conjunct) const {
        using enum Cluster;
        if (last_value_ == '\r' && value == '\n') return true;
        if (last_ == kControl || kind == kControl) return false;
        if (kind == kExtend || kind == kJoiner || kind == kSpacing || last_ == kPrepend) return true;
        if (last_ == kL) return kind == kL || kind == kV || kind == kLV || kind == kLVT;
        if (last_ == kLV || last_ == kV) return kind == kV || kind == kT;
        if (last_ == kLVT || last_ == kT) return kind == kT;
        if (kind == kPicture) return joins_picture_;
        return conjunct == Conjunct::kConsonant && is_linked_;
    }

    Cluster last_ = Cluster::kControl;
    std::uint32_t last_value_ = kMalformed;
    bool after_picture_ = false, joins_picture_ = false;
    bool after_consonant_ = false, is_linked_ = false;
};

std::size_t cluster_end(Bytes text, std::size_t begin) {
    ClusterRules rules;
    const CodePoint first = code_point_at(text, begin);
    rules.joins(first);
    std::size_t at = begin + first.length;
    while (at < text.size()) {
        const CodePoint next = code_point_at(text, at);
        if (!rules.joins(next)) break;
        at += next.length;
    }
    return at;
}

std::size_t character_count(Bytes text) {
    std::size_t count = 0;
    for (const std::uint8_t byte : text) count += !is_continuation(byte);
    return count;
}

// Writes the characters of a text in which parts are replaced. A replacement that is shorter than its part adds to the
// change of the last character before its end, so that one is held back.
template <class Sink>
class ReplacingSink {
 public:
    ReplacingSink(Bytes text, Sink& sink) : text_(text), changes_(text, 0, sink) {}

    void replace(Bytes part, Bytes replacement) {
        const auto before = static_cast<std::int64_t>(character_count(part));
        std::int64_t count = 0;
        for (std::size_t at = 0; at < replacement.size(); ++count) {
            const CodePoint next = code_point_at(replacement, at);
            flush();
            value_ = next.value;
            change_ = count >= before;
            is_held_ = true;
            at += next.length;
        }
        if (count < before && is_held_) change_ += count - before;
    }

    // Copies text[begin, end).
    void keep(std::size_t begin, std::size_t end) {
        if (begin == end) return;
        flush();
        const CodePoint last = code_point_before(text_, end);
        if (last.value == kMalformed) {
            changes_.keep(begin, end);
            return;
        }
        changes_.keep(begin, end - last.length);
        value_ = last.value;
        change_ = 0;
        is_held_ = true;
    }

    void flush() {
        if (is_held_) changes_.put(value_, change_);
        is_held_ = false;
    }

 private:
    Bytes text_;
    ChangeSink<Sink> changes_;
    bool is_held_ = false;
    std::uint32_t value_ = 0;
    std::int64_t change_ = 0;
};

class PrecompiledStep final : public SinkStep<PrecompiledStep> {
 public:
    explicit PrecompiledStep(Bytes content) : map_(content) {
        for (std::uint8_t byte = 0; byte < 0x80; ++byte) stays_[byte] = !map_.shortest(Bytes(&byte, 1));
        stays_['\r'] = false;  // it may be in a cluster with the character after it
        for (std::uint32_t value = 0x80; value < 0x110000; ++value) {
            std::uint8_t bytes[4];
            if (cluster_of(value) != Cluster::kPrepend) continue;
            takes_next_ |= map_.touches(Bytes(bytes, write_utf8(value, bytes)));
        }
    }

    template <class Sink>
    bool run(Bytes text, bool, Sink& sink) const {
        ReplacingSink<Sink> out(text, sink);
        std::size_t done = 0;
        bool is_changed = false;
        const auto replace = [&](std::size_t begin, std::size_t end, Bytes replacement) {
            out.keep(done, begin);
            out.replace(text.subspan(begin, end - begin), replacement);
            done = end;
            is_changed = true;
        };
        for (std::size_t at = 0; at < text.size();) {
            if (is_plain(text, at)) {
                ++at;
                continue;
            }
            const std::size_t end = cluster_end(text, at);
            if (end - at < kLongCluster) {
                if (const auto match = match_of(text.subspan(at, end - at), code_point_at(text, at))) {
                    replace(at, end, match.replacement);
                    at = end;
                    continue;
                }
            }
            while (at < end) {
                const CodePoint character = code_point_at(text, at);
                const std::size_t next = at + character.length;
                if (const auto match = match_of(text.subspan(at, next - at), character)) {
                    replace(at, next, match.replacement);
                }
                at = next;
            }
        }
        if (!is_changed) return false;
        out.keep(done, text.size());
        out.flush();
        return true;
    }

    // A cluster ends between the two, and no character before them matters to that.
    std::optional<Neighbours> across(Neighbours neighbours) const override {
        const Cluster kind = cluster_of(neighbours.before);
        const Conjunct conjunct = conjunct_of(neighbours.before);
        if (kind == Cluster::kExtend || kind == Cluster::kSpacing || kind == Cluster::kJoiner ||
            conjunct == Conjunct::kExtend || conjunct == Conjunct::kLinker) {
            return std::nullopt;
        }
        ClusterRules rules;
        rules.joins({neighbours.before, 0});
        if (rules.joins({neighbours.after, 0})) return std::nullopt;
        const auto stays = [this](std::uint32_t value) {
            std::uint8_t bytes[4];
            const Cluster its_kind = cluster_of(value);
            const bool may_be_alone = its_kind == Cluster::kOther || its_kind == Cluster::kControl;
            return may_be_alone && value != '\r' && value != '\n' && conjunct_of(value) == Conjunct::kNone &&
                   !map_.touches(Bytes(bytes, write_utf8(value, bytes)));
        };
        return Neighbours{!takes_next_ && stays(neighbours.before) ? neighbours.before : kUnknown,
                          stays(neighbours.after) ? neighbours.after : kUnknown};
    }

 private:
    static constexpr std::size_t kLongCluster = 6;  // bytes; tokenizers replaces only shorter ones as a whole

    // Returns the key that a part of the text begins with. `first` is its first character.
    CharacterMap::Match match_of(Bytes part, CodePoint first) const {
        return first.value == kMalformed ? CharacterMap::Match() : map_.shortest(part);
    }

    // Returns whether the character at the start of a cluster is one byte, is the whole cluster, and stays.
    bool is_plain(Bytes text, std::size_t at) const {
        return text[at] < 0x80 && stays_[text[at]] && (at + 1 == text.size() || text[at + 1] < 0x80);
    }

    const CharacterMap map_;
    std::array<bool, 0x80> stays_;
    bool takes_next_ = false;  // whether a character that joins to any character after it is in a key
};

}  // namespace

Step precompiled_step(Bytes content) { return std::make_shared<PrecompiledStep>(content); }

}  // namespace bpe
