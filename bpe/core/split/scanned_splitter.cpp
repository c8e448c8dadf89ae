#include "split/scanned_splitter.hpp"

#include "split/cuts.hpp"

namespace bpe {

Pretokens ScannedSplitter::next(Bytes text, std::size_t position, Start, SplitRoom& room) const {
    const Bytes rest = text.subspan(position);
    if (rest.empty()) return {rest, {}, text.size()};
    const std::size_t count = scan_(pattern_, rest.data(), 0, rest.size(), room.ends, kBatch);
    const std::size_t size = room.ends[count - 1];
    if (room.wants_origins) {
        room.origins.clear();
        for (std::size_t i = position; i < position + size; ++i) room.origins.push_back({i, i + 1});
    }
    return {rest, {room.ends, count}, position + size};
}

std::size_t ScannedSplitter::next_cut(Bytes text, std::size_t position) const {
    return bpe::next_cut(pattern_, text, position);
}

}  // namespace bpe
