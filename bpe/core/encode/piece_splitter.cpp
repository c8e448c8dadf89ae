#include "encode/piece_splitter.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "text/code_points.hpp"

namespace bpe {

namespace {

constexpr std::uint8_t kMetaSpace[] = {0xE2, 0x96, 0x81};  // U+2581
constexpr std::uint8_t kPlainSpace[] = {' '};
constexpr std::uint8_t kReplacementCharacter[] = {0xEF, 0xBF, 0xBD};  // U+FFFD
constexpr std::size_t kLeastNormalized = 8192;                        // bytes of a normalized part, at least
constexpr std::size_t kLongestPlainRun = 1024;

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
    // Writes bytes of which each stands for itself.
    void write_plain(Bytes bytes, std::size_t begin) {
        room_.text.insert(room_.text.end(), bytes.begin(), bytes.end());
        if (!room_.wants_origins) return;
        for (std::size_t i = 0; i < bytes.size(); ++i) room_.origins.push_back({begin + i, begin + i + 1});
    }
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
    for (int byte = 0x21; byte < 0x7F; ++byte) {
        is_plain_[byte] = is_plain_before_ascii_[byte] = !symbols.may_begin_with(static_cast<std::uint8_t>(byte));
        may_precede_cut_[byte] = may_follow_space_[byte] = true;
    }
    for (int byte = 0x80; byte < 0xC0; ++byte) may_precede_cut_[byte] = settings_.map.is_empty();
    for (int byte = 0xC2; byte < 0xF5; ++byte) may_follow_space_[byte] = true;
    // Text may be cut only before a space that is a word's first character.
    if (settings_.whitespace_as_suffix || symbols.has_inner_space() || symbols.may_begin_with(' ')) {
        std::fill(std::begin(may_precede_cut_), std::end(may_precede_cut_), false);
    }
    if (!settings_.map.is_empty()) summarize_map();
}

// Takes from the ASCII characters what the map may change. If it has too many strings, nothing is certain.
void PieceSplitter::summarize_map() {
    bool is_certain = true;
    const bool is_complete = settings_.map.for_each([&](Bytes string, Bytes) {
        const std::uint8_t first = string[0];
        is_plain_[first] = false;
        may_precede_cut_[string.back()] = false;
        if (string.size() == 1 || string[1] < 0x80) is_plain_before_ascii_[first] = false;
        if (first == ' ' && string.size() > 1) may_follow_space_[string[1]] = false;
        if (first == ' ' && string.size() == 1) is_certain = false;
        if (std::find(string.begin() + 1, string.end(), ' ') != string.end()) is_certain = false;
    });
    if (is_complete && is_certain) return;
    for (bool* const flags : {is_plain_, is_plain_before_ascii_, may_precede_cut_})
        std::fill(flags, flags + 256, false);
}

// Returns what the beginning of a text becomes: a user-defined symbol stays, the longest string of the map is replaced,
// any other character stays, and a malformed byte becomes U+FFFD.
PieceSplitter::Step PieceSplitter::step(Bytes text) const {
    const SymbolTrie& symbols = pieces_->user_defined();
    if (symbols.may_begin_with(text[0])) {
        if (const std::size_t length = symbols.longest(text).length) return {text.first(length), length};
    }
    if (const CharacterMap::Match match = settings_.map.longest(text); match.length) {
        return {match.replacement, match.length};
    }
    const CodePoint point = code_point_at(text, 0);
    if (point.value == kMalformed) return {Bytes(kReplacementCharacter), 1};
    return {text.first(point.length), point.length};
}

// Returns how many bytes from `position` on are ASCII characters that stay themselves and are no spaces.
std::size_t PieceSplitter::plain_run(Bytes text, std::size_t position) const {
    const std::size_t end = std::min(text.size(), position + kLongestPlainRun);
    std::size_t at = position;
    while (at < end && (is_plain_[text[at]] ||
                        (is_plain_before_ascii_[text[at]] && (at + 1 == text.size() || text[at + 1] < 0x80)))) {
        ++at;
    }
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
        if (const std::size_t run = plain_run(text, position)) {
            writer.write_plain(text.subspan(position, run), position);
            position += run;
            after_space = false;
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
