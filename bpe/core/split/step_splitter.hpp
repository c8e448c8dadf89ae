// Splitting by steps, one after the other; see bpe/splitting/steps.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/types.hpp"
#include "split/levels.hpp"
#include "split/splitter.hpp"
#include "split/step_chain.hpp"
#include "split/steps.hpp"

namespace bpe {

// Every step sees each piece that the step before it makes, as a text of its own.
class StepSplitter final : public Splitter {
 public:
    explicit StepSplitter(std::vector<AnyStep> steps);

    Pretokens next(Bytes text, std::size_t position, Start start, SplitRoom& room) const override;
    std::size_t next_cut(Bytes text, std::size_t position) const override;
    bool depends_on_start() const override { return depends_on_start_; }
    bool needs_first() const override { return needs_first_; }
    bool keeps_text() const override { return keeps_text_; }

    // Returns how many steps the matchers have made with a room, for tests of linear time.
    std::uint64_t steps_made(const SplitRoom& room) const;

 private:
    void find_fast_step();
    void find_cutting_step();
    Pretokens next_fast(Bytes text, std::size_t position, SplitRoom& room) const;
    Pretokens next_by_levels(Bytes text, std::size_t position, Start start, SplitRoom& room) const;
    static Pretokens next_of(Levels& levels, Bytes text, SplitRoom& room);

    std::vector<AnyStep> steps_;
    const FastMatcher* fast_ = nullptr;      // of the only step, if its matches are the pretokens of every text
    std::optional<StepChain> chain_;         // of all steps, if there are several and they can be read together
    const FastMatcher* cutting_ = nullptr;   // of the step that decides where the text may be cut,
    const MetaspaceStep* spaces_ = nullptr;  // or the step that splits before spaces
    bool depends_on_start_ = false;
    bool needs_first_ = false;
    bool keeps_text_ = true;
};

}  // namespace bpe
