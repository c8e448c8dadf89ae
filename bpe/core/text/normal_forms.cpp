// NFC, NFD, NFKC and NFKD (Unicode Standard Annex 15).

#include <algorithm>
#include <cstring>

#include "text/normal_sinks.hpp"
#include "text/normal_tables.hpp"

namespace bpe {

namespace {

constexpr std::uint32_t kSyllables = 0xAC00, kSyllableCount = 11172;  // Hangul
constexpr std::uint32_t kLeads = 0x1100, kLeadCount = 19;
constexpr std::uint32_t kVowels = 0x1161, kVowelCount = 21;
constexpr std::uint32_t kTails = 0x11A7, kTailCount = 28;  // the first tail is none
constexpr std::uint32_t kNone = 0xFFFFFFFF;

// Returns what two characters compose to, or kNone.
std::uint32_t composed(std::uint32_t first, std::uint32_t second) {
    if (second - kVowels < kVowelCount && first - kLeads < kLeadCount) {
        return kSyllables + ((first - kLeads) * kVowelCount + (second - kVowels)) * kTailCount;
    }
    if (second - kTails - 1 < kTailCount - 1 && first - kSyllables < kSyllableCount &&
        (first - kSyllables) % kTailCount == 0) {
        return first + (second - kTails);
    }
    constexpr std::size_t kCount = std::size(normal_tables::kFormPairs) / 3;
    const auto* pairs = normal_tables::kFormPairs;
    std::size_t low = 0, high = kCount;
    while (low < high) {
        const std::size_t middle = (low + high) / 2;
        const char32_t* pair = pairs + 3 * middle;
        if (pair[0] < first || (pair[0] == first && pair[1] < second)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const char32_t* pair = pairs + 3 * low;
    return low < kCount && pair[0] == first && pair[1] == second ? pair[2] : kNone;
}

// A character of a part that is being normalized. `change` counts as in tokenizers: 0 if it replaces a character of the
// text, -n if it also replaces the n characters after that, and 1 if it is new.
struct Piece {
    std::uint32_t value;
    std::int32_t change;
    std::uint32_t combining_class;
};

void decompose(std::uint32_t value, bool is_compatible, std::vector<Piece>& pieces) {
    if (value - kSyllables < kSyllableCount) {
        const std::uint32_t index = value - kSyllables, tail = index % kTailCount;
        pieces.push_back({kLeads + index / kTailCount / kVowelCount, 0, 0});
        pieces.push_back({kVowels + index / kTailCount % kVowelCount, 1, 0});
        if (tail) pieces.push_back({kTails + tail, 1, 0});
        return;
    }
    const FormRecord& record = form_record(value);
    const std::size_t size = is_compatible ? record.compatible_size : record.canonical_size;
    if (size == 0) {
        pieces.push_back({value, 0, record.combining_class});
        return;
    }
    const char32_t* parts = normal_tables::kFormPool + (is_compatible ? record.compatible : record.canonical);
    for (std::size_t i = 0; i < size; ++i) {
        pieces.push_back({parts[i], i > 0, form_record(parts[i]).combining_class});
    }
}

// Sorts the marks after each starter.
void reorder(std::vector<Piece>& pieces) {
    const auto by_class = [](const Piece& a, const Piece& b) { return a.combining_class < b.combining_class; };
    for (auto begin = pieces.begin(); begin != pieces.end();) {
        auto end = begin + 1;
        if (begin->combining_class != 0) {
            while (end != pieces.end() && end->combining_class != 0) ++end;
            if (!std::is_sorted(begin, end, by_class)) std::stable_sort(begin, end, by_class);
        }
        begin = end;
    }
}

// Composes decomposed and sorted pieces in place.
void compose(std::vector<Piece>& pieces) {
    std::size_t size = 0;          // of the result
    std::size_t starter = kNone;   // where the last starter is in it
    std::uint32_t last_class = 0;  // of the last piece after the starter; 0 if there is none
    for (const Piece piece : pieces) {
        // A piece is blocked from the starter by a piece between them of the same or a higher class.
        if (starter != kNone && (last_class == 0 || last_class < piece.combining_class)) {
            Piece& first = pieces[starter];
            const bool may_compose = form_record(piece.value).flags & kSecond;
            const std::uint32_t value = may_compose ? composed(first.value, piece.value) : kNone;
            if (value != kNone) {
                first.value = value;
                first.change += piece.change - 1;
                continue;
            }
        }
        if (piece.combining_class == 0) {
            starter = size;
            last_class = 0;
        } else if (starter != kNone) {
            last_class = piece.combining_class;
        }
        pieces[size++] = piece;
    }
    pieces.resize(size);
}

class FormStep final : public SinkStep<FormStep> {
 public:
    explicit FormStep(Form form)
        : changes_(static_cast<std::uint16_t>(kChanges << static_cast<int>(form))),
          starts_(static_cast<std::uint16_t>(kStarts << static_cast<int>(form))),
          is_compatible_(form == Form::kNfkd || form == Form::kNfkc),
          composes_(form == Form::kNfc || form == Form::kNfkc) {}

    template <class Sink>
    bool run(Bytes text, bool, Sink& sink) const {
        std::size_t done = 0;
        bool is_changed = false;
        std::vector<Piece> pieces;
        for (Part part = next_part(text, 0); part.begin < text.size(); part = next_part(text, part.end)) {
            pieces.clear();
            for (std::size_t at = part.begin; at < part.end;) {
                const CodePoint character = code_point_at(text, at);
                decompose(character.value, is_compatible_, pieces);
                at += character.length;
            }
            reorder(pieces);
            if (composes_) compose(pieces);
            if (is_same(pieces, text.subspan(part.begin, part.end - part.begin))) continue;
            sink.keep(text, done, part.begin);
            ChangeSink changes(text, part.begin, sink);
            for (const Piece& piece : pieces) changes.put(piece.value, piece.change);
            done = part.end;
            is_changed = true;
        }
        if (is_changed) sink.keep(text, done, text.size());
        return is_changed;
    }

    // A part can begin with the character after the cut, so it never joins to what is before it.
    std::optional<Neighbours> across(Neighbours neighbours) const override {
        const std::uint16_t before = form_record(neighbours.before).flags, after = form_record(neighbours.after).flags;
        if (!(after & starts_)) return std::nullopt;
        const bool keeps_before = !(before & changes_) && (before & starts_);
        const bool keeps_after = !(after & changes_) && !(composes_ && (after & kFirst));
        return Neighbours{keeps_before ? neighbours.before : kUnknown, keeps_after ? neighbours.after : kUnknown};
    }

 private:
    // A part of the text that may change. Characters before and after it have no part in what it becomes.
    struct Part {
        std::size_t begin, end;
    };

    // Returns the next part, or {text.size(), text.size()}.
    Part next_part(Bytes text, std::size_t at) const {
        std::size_t start = at;  // the last character that a part can begin with
        std::uint32_t last_class = 0;
        while (at < text.size()) {
            if (text[at] < 0x80) {
                at = skip_ascii(text, at);
                start = at - 1;
                last_class = 0;
                continue;
            }
            const CodePoint character = code_point_at(text, at);
            if (character.value == kMalformed) {
                start = ++at;
                last_class = 0;
                continue;
            }
            const FormRecord& record = form_record(character.value);
            if (record.flags & starts_) start = at;
            const bool is_out_of_order = record.combining_class != 0 && record.combining_class < last_class;
            if ((record.flags & changes_) || is_out_of_order) return {start, end_of_part(text, at + character.length)};
            last_class = record.combining_class;
            at += character.length;
        }
        return {text.size(), text.size()};
    }

    std::size_t end_of_part(Bytes text, std::size_t at) const {
        while (at < text.size()) {
            const CodePoint character = code_point_at(text, at);
            if (character.value == kMalformed || (form_record(character.value).flags & starts_)) break;
            at += character.length;
        }
        return at;
    }

    // Returns where the first character beyond ASCII is at or after `at`.
    static std::size_t skip_ascii(Bytes text, std::size_t at) {
        for (; text.size() - at >= 8; at += 8) {
            std::uint64_t word;
            std::memcpy(&word, text.data() + at, 8);
            if (word & 0x8080808080808080u) break;
        }
        while (at < text.size() && text[at] < 0x80) ++at;
        return at;
    }

    static bool is_same(const std::vector<Piece>& pieces, Bytes text) {
        std::size_t at = 0;
        for (const Piece& piece : pieces) {
            if (at == text.size()) return false;
            const CodePoint character = code_point_at(text, at);
            if (character.value != piece.value || piece.change != 0) return false;
            at += character.length;
        }
        return at == text.size();
    }

    const std::uint16_t changes_, starts_;
    const bool is_compatible_, composes_;
};

}  // namespace

Step form_step(Form form) { return std::make_shared<FormStep>(form); }

}  // namespace bpe
