#include "train/unreached_tokens.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "encode/merge.hpp"

namespace bpe {

UnreachedTokens::UnreachedTokens(const Vocabulary& base) {
    if (base.token_count() == 256) return;
    Merger merger(base);
    std::vector<Id> ids(base.longest_token());
    for (Id id = 0; id < base.id_limit(); ++id) {
        const auto bytes = base.bytes_of(id);
        if (bytes.size() < 2 || merger.merge(bytes.data(), bytes.size(), ids.data()) == 1) continue;
        for (std::size_t size = 1; size < bytes.size(); ++size) {
            affixes_.emplace(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
            affixes_.emplace(bytes.end() - static_cast<std::ptrdiff_t>(size), bytes.end());
        }
    }
}

void UnreachedTokens::merge(Pair pair, Id made, std::span<const Position> places, const MergedTokens& tokens,
                            Cells& cells) const {
    const auto joined = [&](Id left, Id right) {
        if (left == Cells::kSeparator || right == Cells::kSeparator) return kNoId;
        const std::string bytes = tokens.bytes_of(pair_of(left, right));
        return tokens.base().find(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    };
    cells.add_token(1);
    for (const Position at : places) {
        if (!cells.holds(at, pair)) continue;
        Position begin = at;
        Position end = cells.end_of(cells.end_of(at));
        for (Id id = made;;) {
            cells.join_all(begin, end, id);
            const Id with_left = joined(cells.before(begin), id);
            const Id with_right = joined(id, cells[end]);
            if (with_left == kNoId && with_right == kNoId) break;
            if (with_left <= with_right) {
                begin = cells.begin_before(begin);
            } else {
                end = cells.end_of(end);
            }
            id = std::min(with_left, with_right);
        }
    }
}

}  // namespace bpe
