#include "encode/piece_splitter.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <span>
#include <vector>

#include "text/code_points.hpp"

namespace bpe {

namespace {

constexpr std::uint8_t kMetaSpace[] = {0xE2, 0x96, 0x81};  // U+2581
constexpr std::uint8_t kPlainSpace[] = {' '};
constexpr std::uint8_t kReplacementCharacter[] = {0xEF, 0xBF, 0xBD};  // U+FFFD
constexpr std::size_t kLeastNormalized = 8192;                        // bytes of a normalized part, at least
constexpr std::size_t kLongestCopy = 512;                             // bytes of a text that are copied at once
constexpr std::size_t kShortCopy = 16;                                // the same, near the end of a part
constexpr std::uint32_t kBasicEnd = 0x10000;

std::uint32_t last_code_point(Bytes text) {
    std::size_t begin = text.size() - 1;
    while (begin > 0 && text.size() - begin < 4 && (text[begin] & 0xC0) == 0x80) --begin;
    const CodePoint point = code_point_at(text, begin);
    return begin + point.length == text.size() ? point.value : kMalformed;
}

bool is_one_space(Bytes text) { return text.size() == 1 && text[0] == ' '; }

}  // namespace

// Writes normalized text and where it comes from.
class PieceSplitter::Writer {
 public:
    Writer(const Settings& settings, SplitRoom& room)
        : space_(settings.escape_whitespaces ? Bytes(kMetaSpace) : Bytes(kPlainSpace)),
          escapes_(settings.escape_whitespaces),
          room_(room) {
        room.text.clear();
        room.origins.clear();
    }

    std::size_t size() const { return room_.text.size(); }
    Bytes text() const { return room_.text; }
    bool ends_with_space() const {
        const Bytes text = room_.text;
        return text.size() >= space_.size() && std::ranges::equal(text.last(space_.size()), space_);
    }
    Bytes space() const { return space_; }

    // Writes `bytes`, which stand for bytes [begin, end) of the text.
    void write(Bytes bytes, std::size_t begin, std::size_t end) {
        if (escapes_ && std::memchr(bytes.data(), ' ', bytes.size())) {
            for (const std::uint8_t& byte : bytes) append(byte == ' ' ? space_ : Bytes(&byte, 1), begin, end);
        } else {
            append(bytes, begin, end);
        }
    }
    // Writes bytes that were copied from the text, with their origins if these are wanted.
    void write_copied(Bytes bytes, std::span<const Range> origins) {
        room_.text.insert(room_.text.end(), bytes.begin(), bytes.end());
        room_.origins.insert(room_.origins.end(), origins.begin(), origins.end());
    }
    bool wants_origins() const { return room_.wants_origins; }
    void remove_last_spaces() {
        while (ends_with_space()) {
            room_.text.resize(room_.text.size() - space_.size());
            if (room_.wants_origins) room_.origins.resize(room_.text.size());
        }
    }

 private:
    void append(Bytes bytes, std::size_t begin, std::size_t end) {
        room_.text.insert(room_.text.end(), bytes.begin(), bytes.end());
        if (room_.wants_origins) room_.origins.insert(room_.origins.end(), bytes.size(), Range{begin, end});
    }

    Bytes space_;
    bool escapes_;
    SplitRoom& room_;
};

PieceSplitter::PieceSplitter(Settings settings, std::shared_ptr<const Pieces> pieces)
    : settings_(std::move(settings)), pieces_(std::move(pieces)) {
    const SymbolTrie& symbols = pieces_->user_defined();
    for (int byte = 0x21; byte < 0x7F; ++byte) may_precede_cut_[byte] = may_follow_space_[byte] = true;
    for (int byte = 0x80; byte < 0xC0; ++byte) may_precede_cut_[byte] = settings_.map.is_empty();
    for (int byte = 0xC2; byte < 0xF5; ++byte) may_follow_space_[byte] = true;
    // Text may be cut only before a space that is a word's first character.
    if (settings_.whitespace_as_suffix || symbols.has_inner_space() || symbols.may_begin_with(' ')) {
        std::fill(std::begin(may_precede_cut_), std::end(may_precede_cut_), false);
    }
    set_traits();
}

// Finds out what the map may change. If it has too many strings, nothing is certain.
void PieceSplitter::set_traits() {
    const SymbolTrie& symbols = pieces_->user_defined();
    traits_.resize(kBasicEnd);
    for (std::uint32_t value = 0; value < kBasicEnd; ++value) {
        std::uint8_t bytes[4];
        write_utf8(value, bytes);
        traits_[value] = symbols.may_begin_with(bytes[0]) ? 0 : kStays;
    }
    const CharacterMap& map = settings_.map;
    const auto beginnings = map.beginnings();
    bool spaces_stay = beginnings && !map.has_inner_space();
    for (const Bytes string : beginnings ? *beginnings : std::vector<std::vector<std::uint8_t>>()) {
        add_traits(string);
        if (string[0] == ' ' && string.size() > 1) may_follow_space_[string[1]] = false;
        spaces_stay &= string[0] != ' ' || string.size() > 1;
    }
    if (!beginnings) std::fill(traits_.begin(), traits_.end(), std::uint8_t{0});
    const bool second_is_ascii =
        std::any_of(traits_.begin(), traits_.begin() + 0x80, [](std::uint8_t traits) { return traits & kSecond; });
    for (int byte = 0; byte < 0x80; ++byte) {
        copies_[byte] = byte != ' ' && (traits_[byte] & kStays) && (!second_is_ascii || !(traits_[byte] & kBegins));
    }
    for (int byte = 0; byte < 256; ++byte) {
        if (!spaces_stay || map.may_end_with(static_cast<std::uint8_t>(byte))) may_precede_cut_[byte] = false;
    }
}

// Adds what the beginning of a string of the map says of its characters.
void PieceSplitter::add_traits(Bytes beginning) {
    const CodePoint first = code_point_at(beginning, 0);
    const bool is_basic = first.value < kBasicEnd;
    if (first.length == beginning.size()) {
        if (is_basic) traits_[first.value] &= static_cast<std::uint8_t>(~kStays);
        return;
    }
    if (is_basic) traits_[first.value] |= kBegins;
    const CodePoint second = code_point_at(beginning, first.length);
    if (second.value < kBasicEnd) {
        traits_[second.value] |= kSecond;
    } else {
        is_second_above_basic_ = true;
    }
}

// Returns what the beginning of a text becomes: a user-defined symbol stays, the longest string of the map is replaced,
// any other character stays, and a malformed byte becomes U+FFFD.
PieceSplitter::Step PieceSplitter::step(Bytes text) const {
    const SymbolTrie& symbols = pieces_->user_defined();
    if (symbols.may_begin_with(text[0])) {
        if (const std::size_t length = symbols.longest(text).length) return {text.first(length), length};
    }
    if (const CharacterMap::Match match = settings_.map.longest(text)) {
        return {match.replacement, match.length};
    }
    const CodePoint point = code_point_at(text, 0);
    if (point.value == kMalformed) return {Bytes(kReplacementCharacter), 1};
    return {text.first(point.length), point.length};
}

// Whether a character is certain to stay itself before another one. After the last character, one of no bytes follows.
inline bool PieceSplitter::stays(CodePoint character, CodePoint following) const {
    if (character.value >= kBasicEnd) return false;
    const std::uint8_t traits = traits_[character.value];
    if (!(traits & kStays)) return false;
    if (!(traits & kBegins) || following.length == 0) return true;
    return following.value < kBasicEnd ? !(traits_[following.value] & kSecond) : !is_second_above_basic_;
}

// Copies characters that stay themselves, and writes spaces as the model wants them. Returns how many bytes of the text
// it has read: none where `step` must decide. This is where most of the text passes through.
template <bool kOrigins>
std::size_t PieceSplitter::copy(Bytes text, std::size_t position, bool& after_space, Writer& writer) const {
    const auto character_at = [&](std::size_t at) -> CodePoint {
        if (at >= text.size()) return {kMalformed, 0};
        if (text[at] < 0x80) return {text[at], 1};
        return code_point_at(text, at);
    };
    const std::size_t limit = position + (writer.size() < kLeastNormalized ? kLongestCopy : kShortCopy);
    const Bytes space = writer.space();
    std::uint8_t bytes[3 * kLongestCopy + 4];
    Range origins[kOrigins ? std::size(bytes) : 1];
    std::size_t size = 0;
    std::size_t at = position;
    bool is_after_space = after_space;
    CodePoint next = character_at(at);
    const auto append = [&](std::uint8_t byte, Range origin) {
        if constexpr (kOrigins) origins[size] = origin;
        bytes[size++] = byte;
    };
    while (at < limit) {
        if (const std::size_t first = at; copies_[text[at]]) {
            while (at < limit && at + 1 < text.size() && copies_[text[at]] && text[at + 1] < 0x80) {
                append(text[at], {at, at + 1});
                ++at;
            }
            if (at != first) {
                is_after_space = false;
                next = character_at(at);
                continue;
            }
        }
        const CodePoint character = next;
        const Range origin = {at, at + character.length};
        next = character_at(origin.end);
        if (!stays(character, next)) break;
        if (character.value != ' ') {
            append(text[at], origin);
            if (character.length > 1) append(text[at + 1], origin);
            if (character.length > 2) append(text[at + 2], origin);
            is_after_space = false;
        } else if (!is_after_space) {
            append(space[0], origin);
            if (space.size() > 1) {
                append(space[1], origin);
                append(space[2], origin);
            }
            is_after_space = settings_.remove_extra_whitespaces;
        }
        at = origin.end;
    }
    if (size) writer.write_copied({bytes, size}, {origins, kOrigins ? size : 0});
    after_space = is_after_space;
    return at - position;
}

// Whether a part may end here: nothing that follows changes what has been written, and no merge crosses the place.
bool PieceSplitter::may_stop(Bytes rest, const Writer& writer) const {
    if (!writer.size() || writer.ends_with_space()) return false;
    const Bytes following = step(rest).replacement;
    if (following.empty()) return false;
    const Bytes first = is_one_space(following.first(1)) ? writer.space() : following;
    return pieces_->may_cut(last_code_point(writer.text()), code_point_at(first, 0).value);
}

bool PieceSplitter::wants_prefix(Bytes text, Start start) const {
    if (settings_.whitespace_as_suffix || (start == Start::kPart && !settings_.prefix_parts)) return false;
    if (!settings_.prefix_unless_space) return true;
    const Bytes first = step(text).replacement;
    return !first.empty() && first[0] != ' ' && code_point_at(first, 0).value != 0x2581;
}

Pretokens PieceSplitter::next(Bytes text, std::size_t position, Start start, SplitRoom& room) const {
    Writer writer(settings_, room);
    const bool removes = settings_.remove_extra_whitespaces;
    const std::size_t begin = position;
    bool is_first = position == 0 && start != Start::kInside;
    if (is_first && removes) {
        while (position < text.size()) {
            const Step skipped = step(text.subspan(position));
            if (!is_one_space(skipped.replacement)) break;
            position += skipped.length;
        }
        if (position == text.size()) return {Bytes(), {}, text.size(), text.size() - begin};
    }
    const bool adds = settings_.add_dummy_prefix && position < text.size();
    if (is_first && adds && wants_prefix(text.subspan(position), start)) {
        writer.write(Bytes(kPlainSpace), position, position);
    }
    // A part ends where the last character is no space, and so does a text that is cut.
    bool after_space = removes && is_first;
    while (position < text.size()) {
        if (writer.size() >= kLeastNormalized && may_stop(text.subspan(position), writer)) break;
        if (const std::size_t size = writer.wants_origins() ? copy<true>(text, position, after_space, writer)
                                                            : copy<false>(text, position, after_space, writer)) {
            position += size;
            continue;
        }
        const Step next = step(text.subspan(position));
        Bytes written = next.replacement;
        while (after_space && !written.empty() && written[0] == ' ') written = written.subspan(1);
        if (!written.empty()) {
            writer.write(written, position, position + next.length);
            after_space = removes && written.back() == ' ';
        }
        position += next.length;
    }
    if (position == text.size()) {
        if (removes) writer.remove_last_spaces();
        if (adds && settings_.whitespace_as_suffix) writer.write(Bytes(kPlainSpace), position, position);
    }
    room.ends[0] = writer.size();
    return {writer.text(), {room.ends, writer.size() ? std::size_t{1} : 0}, position};
}

// The left side ends with a character that stays itself and is no space, so that nothing of it is removed. The right
// side begins with a space that stays one. No string that is replaced or kept lies across the place, and no merge.
std::size_t PieceSplitter::next_cut(Bytes text, std::size_t position) const {
    const std::uint32_t space = settings_.escape_whitespaces ? 0x2581 : ' ';
    for (position = std::max<std::size_t>(position, 1); position + 1 < text.size(); ++position) {
        const void* const found = std::memchr(text.data() + position, ' ', text.size() - position - 1);
        if (!found) break;
        position = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - text.data());
        if (!may_precede_cut_[text[position - 1]] || !may_follow_space_[text[position + 1]]) continue;
        const std::uint32_t before = last_code_point(text.first(position));
        if (before != kMalformed && before != 0x2581 && pieces_->may_cut(before, space)) return position;
    }
    return text.size();
}

}  // namespace bpe
