// Splitting by the hand-written scanners of the well-known patterns.
#pragma once

#include <cstddef>
#include <span>

#include "base/types.hpp"
#include "kernels/kernels.hpp"
#include "split/splitter.hpp"

namespace bpe {

class ScannedSplitter final : public Splitter {
 public:
    explicit ScannedSplitter(Pattern pattern, const Kernel& kernel = chosen_kernel())
        : pattern_(pattern), scan_(kernel.scan) {}

    Pattern pattern() const { return pattern_; }
    // Returns the scanner, for callers that save the virtual call for each short text.
    Scan scan() const { return scan_; }

    Pretokens next(Bytes text, std::size_t position, Start start, SplitRoom& room) const override;
    std::size_t next_cut(Bytes text, std::size_t position) const override;
    bool keeps_text() const override { return true; }

 private:
    Pattern pattern_;
    Scan scan_;
};

}  // namespace bpe
