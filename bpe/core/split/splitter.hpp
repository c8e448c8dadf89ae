// Splitting a text into pretokens, the pieces that merges never cross.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/types.hpp"
#include "kernels/keys.hpp"

namespace bpe {

// What stands before a piece of text. Some splitters put a space in front of a text or of a part.
enum class Start : std::uint8_t {
    kText,   // nothing: it begins the whole text
    kPart,   // an added token: it begins a part of the text
    kInside  // more of the same part: the text was cut here
};

// The memory of one caller, reused from call to call. A splitter without a state of its own is shared by all threads.
struct SplitRoom {
    // What a splitter remembers between the calls for one text.
    struct State {
        virtual ~State() = default;
    };

    std::uint64_t ends[kBatch];
    std::vector<std::uint8_t> text;  // for pretokens that do not lie side by side in the text, or are changed
    std::unique_ptr<State> state;
    // How many bytes of the text stand for the first character of a text that was normalized before; see `needs_first`.
    // Unset if it was not normalized.
    std::optional<std::size_t> first_size;
    // Whether `next` fills `origins`: for each byte of the pretokens, the bytes of the text that it stands for. A
    // byte that was inserted before a character stands for that character, as in tokenizers.
    bool wants_origins = false;
    std::vector<Range> origins;
};

// Pretokens side by side. None is empty.
struct Pretokens {
    Bytes text;                           // begins with the first pretoken; may extend beyond the last
    std::span<const std::uint64_t> ends;  // where each pretoken ends in `text`; at most kBatch
    std::size_t next;                     // where to continue in the text that was split; its size at the end
    std::size_t left_out = 0;             // bytes of the text up to `next` that belong to no pretoken
};

// A splitter is immutable, so any number of threads may use it, each with a room of its own.
class Splitter {
 public:
    virtual ~Splitter() = default;

    // Returns the next pretokens of a text, perhaps none, and where to continue. The first call for a text has the
    // position 0, and each later one the `next` of the one before, with the same text and room. `next` is greater than
    // `position` unless the text is empty. Like the room, the result is valid until the next call. The text must not
    // be changed between the calls.
    virtual Pretokens next(Bytes text, std::size_t position, Start start, SplitRoom& room) const = 0;

    // Returns a place at or after `position`, and after the text's first byte, where the text may be cut: its pretokens
    // are those of the two sides, whatever follows the text, if the left side is split with the same `start` and the
    // right side with Start::kInside. Returns text.size() if it knows none. The place is always between two characters.
    // It is such a place in any text that contains this one: only the characters around it matter.
    virtual std::size_t next_cut(Bytes text, [[maybe_unused]] std::size_t position) const { return text.size(); }

    // Whether the pretokens of a text depend on its `start`.
    virtual bool depends_on_start() const { return false; }

    // Whether the splitter treats what stands for the first character of a text differently.
    virtual bool needs_first() const { return false; }

    // Whether every pretoken is a part of the text and every byte of the text is in a pretoken.
    virtual bool keeps_text() const { return false; }
};

}  // namespace bpe
