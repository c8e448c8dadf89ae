#include "encode/places.hpp"

#include <algorithm>
#include <span>

#include "text/unicode.hpp"

namespace bpe {

namespace {

class Placer {
 public:
    Placer(const Encoder& encoder, const AddedTokens* added, PlacedIds& out)
        : encoder_(encoder), added_(added && !added->empty() ? added : nullptr), out_(out) {
        room_.wants_origins = true;
    }

    void add_text(Bytes text) {
        const auto on_token = [&](AddedTokens::Match match) { add(match.id, {match.begin, match.end}); };
        const auto on_part = [&](std::size_t begin, std::size_t end) {
            const Start start = begin ? Start::kPart : Start::kText;
            base_ = begin;
            origins_ = {};
            const Bytes part = text.subspan(begin, end - begin);
            if (encoder_.normalizer()) {
                add_normalized(part, start);
            } else {
                add_part(part, 0, start);
            }
        };
        if (!added_) return on_part(0, text.size());
        if (encoder_.normalizer()) return added_->split_early(text, on_part, on_token);
        added_->split(text, on_part, on_token);
    }

 private:
    void add(Id id, Range place) {
        out_.ids.push(id);
        out_.places.push_back(place);
    }

    void add_normalized(Bytes text, Start start) {
        const NormalizedText normalized = encoder_.normalizer()->apply_with_origins(text, true, normal_);
        origins_ = normalized.origins;
        room_.first_size.reset();
        if (start == Start::kText && encoder_.splitter().needs_first()) {
            NormalRoom other;
            room_.first_size = encoder_.normalizer()->first_size(text, other);
        }
        const Bytes part = normalized.text;
        if (!added_) return add_part(part, 0, start);
        added_->split_late(
            part,
            [&](std::size_t begin, std::size_t end) {
                add_part(part.subspan(begin, end - begin), begin, begin ? Start::kPart : start);
            },
            [&](AddedTokens::Match match) { add(match.id, origin_of({match.begin, match.end})); });
    }

    // `offset` is where the part begins in the normalized text.
    void add_part(Bytes part, std::size_t offset, Start start) {
        for (std::size_t position = 0; position < part.size();) {
            const Pretokens pretokens = encoder_.splitter().next(part, position, start, room_);
            if (const Pieces* const pieces = encoder_.vocabulary().pieces()) {
                place_pieces(*pieces, pretokens, offset);
                position = pretokens.next;
                continue;
            }
            const std::size_t first = out_.ids.size();
            encoder_.encode_pretokens(pretokens.text, pretokens.ends, out_.ids);
            std::span<const Id> ids(out_.ids.data() + first, out_.ids.size() - first);
            std::uint64_t begin = 0;
            for (const std::uint64_t end : pretokens.ends) {
                place_pretoken(pretokens.text, begin, end, offset, ids);
                begin = end;
            }
            position = pretokens.next;
        }
    }

    void place_pieces(const Pieces& pieces, const Pretokens& pretokens, std::size_t offset) {
        std::uint64_t at = 0;
        for (const std::uint64_t end : pretokens.ends) {
            std::vector<Range> places;
            const std::vector<Id> ids =
                pieces.encode_with_places(pretokens.text.subspan(at, end - at), pieces_, places);
            for (std::size_t i = 0; i < ids.size(); ++i) {
                const std::uint64_t begin = at + places[i].begin;
                const Range first = room_.origins[begin],
                            last = room_.origins[std::max(begin + 1, at + places[i].end) - 1];
                add(ids[i], origin_of({first.begin + offset, std::max(first.begin, last.end) + offset}));
            }
            at = end;
        }
    }

    // Adds the places of the ids of one pretoken, and removes these ids from `ids`.
    void place_pretoken(Bytes text, std::uint64_t begin, std::uint64_t end, std::size_t offset,
                        std::span<const Id>& ids) {
        const Vocabulary& vocabulary = encoder_.vocabulary();
        const Bytes pretoken = text.subspan(begin, end - begin);
        known_.clear();
        const bool is_whole = !ids.empty() && std::ranges::equal(vocabulary.bytes_of(ids[0]), pretoken);
        for (std::uint64_t at = begin; at < end; ++at) {
            if (is_whole || vocabulary.id_of_byte(text[at]) != kNoId) known_.push_back(at);
        }
        for (std::size_t at = 0; at < known_.size(); ids = ids.subspan(1)) {
            const std::size_t size = vocabulary.bytes_of(ids[0]).size();
            const Range first = room_.origins[known_[at]], last = room_.origins[known_[at + size - 1]];
            out_.places.push_back(origin_of({first.begin + offset, last.end + offset}));
            at += size;
        }
    }

    // Returns the bytes of the whole text that a range of the normalized part stands for.
    Range origin_of(Range range) const {
        if (!origins_.empty()) {
            if (range.begin == range.end) {
                const std::uint64_t place =
                    range.begin < origins_.size() ? origins_[range.begin].begin : origins_.back().end;
                range = {place, place};
            } else {
                range = {origins_[range.begin].begin, origins_[range.end - 1].end};
            }
        }
        return {base_ + range.begin, base_ + range.end};
    }

    const Encoder& encoder_;
    const AddedTokens* added_;
    PlacedIds& out_;
    NormalRoom normal_;
    SplitRoom room_;
    Pieces::Room pieces_;
    std::size_t base_ = 0;            // where the part begins in the text
    std::span<const Range> origins_;  // of the bytes of the part after normalization; empty if nothing has changed
    std::vector<std::uint64_t> known_;
};

}  // namespace

PlacedIds encode_with_places(const Encoder& encoder, Bytes text, const AddedTokens* added) {
    PlacedIds placed;
    if (!text.empty()) Placer(encoder, added, placed).add_text(text);
    return placed;
}

void count_in_characters(Bytes text, std::vector<Range>& places) {
    std::vector<std::uint64_t> begun(text.size() + 1);  // characters that begin before each byte
    for (std::size_t i = 0; i < text.size(); ++i) begun[i + 1] = begun[i] + !is_continuation(text[i]);
    for (Range& place : places) {
        const bool is_empty = place.begin == place.end;
        const std::uint64_t begin = is_empty ? begun[place.begin] : begun[place.begin + 1] - 1;
        place = {begin, is_empty ? begin : begun[place.end]};
    }
}

}  // namespace bpe
