// Finds the frequent pairs of the words, and their places.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "base/memory.hpp"
#include "train/cells.hpp"
#include "train/merged_tokens.hpp"
#include "train/pair_tables.hpp"

namespace bpe {

// The places of pairs. They are written share by share, and the memory of the share that they come from is freed, so
// small pages lower the peak: with large ones, all of them are touched at once.
using Places = Buffer<Position, true>;

// Call `collect`, then `count`, then `take_places`, any number of times. The cells must not change in between.
class PairSearch {
 public:
    PairSearch(Cells& cells, const MergedTokens& tokens, std::size_t threads)
        : cells_(cells), tokens_(tokens), threads_(threads) {}

    // Compacts the cells and collects the places of all pairs that may reach the threshold. Returns false, with an
    // incomplete collection, if there are more than `most` places.
    bool collect(Count threshold, std::size_t most);

    // Counts the collected pairs, and returns those that reach the threshold and may be merged: all of them, or the
    // best ones, but at least `enough`.
    std::vector<PairEntry> count(Count threshold, std::size_t enough) const;

    // Keeps the best `count` pairs, the last of which becomes the last element.
    static void keep_best(std::vector<PairEntry>& pairs, std::size_t count);

    // Writes the places of each known pair to places[first_place...], and frees the collection.
    void take_places(KnownPairs& known, Places& places);

 private:
    // Pairs are shared out by their hashes, so that each share is counted by one thread, in a small table.
    static constexpr std::size_t kShares = 64;
    static std::size_t share_of(Pair pair) { return hash_of(pair, 0) >> 58; }

    template <class Work>
    void for_shares(const Work& work) const;  // calls work(share, table) with an empty table that the thread keeps
    template <class Use>
    void visit_places(const Buffer<Position>& places, const KnownPairs& pairs, const Use& use) const;

    Cells& cells_;
    const MergedTokens& tokens_;
    std::size_t threads_;
    ZeroedArray<std::uint32_t> sums_{0};  // of the sketches; small ones are kept for the next search
    std::vector<std::array<Buffer<Position>, kShares>> places_;  // for each part of the cells
};

}  // namespace bpe
