// Where a text may be cut that is searched for added tokens, normalized and split.
#pragma once

#include <cstddef>

#include "base/types.hpp"
#include "encode/added.hpp"
#include "split/splitter.hpp"
#include "text/normalizer.hpp"

namespace bpe {

class Cutter {
 public:
    // `normalizer` and `added` may be null. All three arguments must outlive the cutter.
    Cutter(const Splitter& splitter, const Normalizer* normalizer, const AddedTokens* added)
        : splitter_(splitter), normalizer_(normalizer), added_(added && !added->empty() ? added : nullptr) {}

    // Returns a place at or after `position`, and after the text's first byte, where the text may be cut: its ids are
    // those of the two sides, the right one encoded with Start::kInside. Returns text.size() if it knows none.
    std::size_t next_cut(Bytes text, std::size_t position) const;

    // Returns the last place where a text may be cut, whatever follows it, or 0 if it knows none.
    std::size_t last_cut(Bytes text) const;

 private:
    bool tokens_may_be_cut(Bytes text, std::size_t position) const;
    bool is_cut_when_normalized(Bytes text, std::size_t position) const;

    const Splitter& splitter_;
    const Normalizer* normalizer_;
    const AddedTokens* added_;
};

}  // namespace bpe
