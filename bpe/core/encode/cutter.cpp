#include "encode/cutter.hpp"

#include <algorithm>
#include <vector>

#include "split/cuts.hpp"

namespace bpe {

std::size_t Cutter::next_cut(Bytes text, std::size_t position) const {
    for (;; ++position) {
        position = normalizer_ ? normalizer_->next_cut(text, position) : splitter_.next_cut(text, position);
        if (position >= text.size()) return text.size();
        if (!tokens_may_be_cut(text, position)) continue;
        if (!normalizer_ || is_cut_when_normalized(text, position)) return position;
    }
}

// Searches the text from further and further back: each time twice as far from its end.
std::size_t Cutter::last_cut(Bytes text) const {
    const std::size_t end = added_ ? added_->unfinished(text, 0, normalizer_ != nullptr) : text.size();
    for (std::size_t back = 64;; back *= 2) {
        const std::size_t from = text.size() - std::min(text.size(), back);
        std::size_t last = 0;
        for (std::size_t at = from; (at = next_cut(text, at)) < end; ++at) last = at;
        if (last || !from) return last;
    }
}

// Whether the added tokens of a text are those of the two sides. They are searched for from left to right, so the same
// tokens are found if none begins on one side and ends on the other. A token that ends or begins at the cut separates
// the ids there anyway, but where the start of a part matters, the text after a token must not become the inside of a
// part.
bool Cutter::tokens_may_be_cut(Bytes text, std::size_t position) const {
    if (!added_) return true;
    if (normalizer_) return !added_->touches_early(text, position);
    return added_->may_cut(text, position) && !(splitter_.depends_on_start() && added_->touches(text, position));
}

// Whether the normalized text may be cut between what the two sides of a place become, where the normalizer allows a
// cut. Only the characters around it matter, so it is enough to normalize those. Their own edges are places where the
// normalizer allows a cut, whatever follows.
bool Cutter::is_cut_when_normalized(Bytes text, std::size_t position) const {
    const std::size_t longest = added_ ? added_->longest_late() : 0;
    const std::size_t around = 32 + 2 * longest;
    std::size_t begin = 0;
    if (position > around) {
        begin = normalizer_->next_cut(text, position - around);
        if (begin >= position) return false;
    }
    std::size_t end = normalizer_->next_cut(text, position + std::min(text.size() - position, around));
    if (end >= text.size()) end = normalizer_->next_cut(text, position + 1);
    if (end >= text.size()) return false;
    if (longest && added_->has_early_in(text.subspan(begin, end - begin))) return false;  // it begins a part
    NormalRoom left_room, right_room;
    const Bytes right = normalizer_->apply(text.subspan(position, end - position), false, right_room);
    for (const bool at_start : {false, true}) {
        const Bytes left = normalizer_->apply(text.subspan(begin, position - begin), at_start, left_room);
        if (left.empty() || right.empty() || (begin && left.size() < longest)) return false;
        std::vector<std::uint8_t> joined(left.begin(), left.end());
        joined.insert(joined.end(), right.begin(), right.end());
        if (splitter_.next_cut(joined, left.size()) != left.size()) return false;
        if (added_ && !added_->may_cut_late(joined, left.size())) return false;
        if (begin) break;  // otherwise, the text may begin a part, which some normalizers put something in front of
    }
    return true;
}

}  // namespace bpe
