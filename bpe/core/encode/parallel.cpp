#include "encode/parallel.hpp"

#include <utility>

namespace bpe {

Plan::Plan(std::span<const Bytes> texts, const NextCut& next_cut, std::size_t threads) {
    // Blocks are so large that taking the next one costs nothing compared with encoding it. Each thread gets several,
    // since not all blocks take the same time.
    constexpr std::size_t kLargest = std::size_t{1} << 18;
    constexpr std::size_t kSmallest = std::size_t{1} << 14;
    std::size_t total = 0;
    for (const auto text : texts) total += text.size();
    const std::size_t wanted = std::clamp(total / (4 * std::max<std::size_t>(1, threads)), kSmallest, kLargest);

    pieces_.reserve(texts.size() + total / wanted);
    for (std::size_t number = 0; number < texts.size(); ++number) {
        Bytes rest = texts[number];
        bool first = true;
        while (threads > 1 && rest.size() >= 2 * wanted) {
            const std::size_t cut = next_cut(rest, wanted);
            if (cut == rest.size()) break;
            pieces_.push_back({rest.first(cut), number, first, false});
            rest = rest.subspan(cut);
            first = false;
        }
        pieces_.push_back({rest, number, first, true});
    }
    const std::span<const Piece> all = pieces_;
    for (std::size_t first = 0, last = 0; first < all.size(); first = last) {
        for (std::size_t bytes = 0; last < all.size() && bytes < wanted; ++last) bytes += all[last].bytes.size();
        blocks_.push_back({all.subspan(first, last - first)});
    }
}

const Id* IdStore::keep(const Id* ids, std::size_t count) {
    if (!count) return nullptr;
    if (count > left_) {
        left_ = std::max(count, kChunk);
        chunks_.push_back(zeroed_memory(left_ * sizeof(Id)));
        next_ = static_cast<Id*>(chunks_.back().get());
    }
    Id* kept = std::exchange(next_, next_ + count);
    left_ -= count;
    std::memcpy(kept, ids, count * sizeof(Id));
    return kept;
}

EncodedTexts::EncodedTexts(Plan plan, std::vector<IdStore> stores, std::vector<std::int64_t> offsets,
                           std::size_t threads)
    : plan_(std::move(plan)), stores_(std::move(stores)), offsets_(std::move(offsets)), threads_(threads) {
    std::size_t total = 0;
    for (Block& block : plan_.blocks()) {
        block.before = total;
        for (const Piece& piece : block.pieces) {
            if (piece.last) offsets_[piece.text + 1] += static_cast<std::int64_t>(total);
        }
        total += block.count;
    }
}

}  // namespace bpe
