// Where in a text the ids of pieces are.

#include <algorithm>

#include "encode/pieces.hpp"
#include "text/code_points.hpp"

namespace bpe {

std::vector<Id> Pieces::encode_with_places(Bytes text, Room& room, std::vector<Range>& places) const {
    room.wants_places = true;
    begin(text, room);
    merge(room);
    room.wants_places = false;
    std::vector<Id> ids;
    for (std::size_t symbol = 0; symbol < room.symbols.size(); ++symbol) {
        add_outputs(room.symbols[symbol], room.places[symbol], ids, places);
    }
    return ids;
}

// Adds what a symbol is written as, with the places. A symbol of several ids has the ids of its parts or of its bytes.
void Pieces::add_outputs(Id symbol, Range place, std::vector<Id>& ids, std::vector<Range>& places) const {
    for (std::uint32_t i = output_begin_[symbol]; i < output_begin_[symbol + 1]; ++i) {
        const Id id = outputs_[i];
        const bool is_last = i + 1 == output_begin_[symbol + 1];
        const std::uint64_t left = place.end - place.begin;
        const std::uint64_t size = is_last ? left : is_unknown_[symbol] ? 1 : std::min<std::uint64_t>(left, size_[id]);
        const Range part{place.begin, place.begin + size};
        place.begin += size;
        if (id == unknown_id_ && !ids.empty() && ids.back() == unknown_id_) {
            places.back().end = part.end;
        } else {
            ids.push_back(id);
            places.push_back(part);
        }
    }
}

}  // namespace bpe
