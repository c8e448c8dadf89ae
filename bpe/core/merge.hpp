// Byte-pair encoding of pretokens.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vocab.hpp"

namespace bpe {

// The definition: start from single bytes; while some two neighbours merge into a token, merge those whose token has
// the lowest rank, the leftmost among equals. Quadratic; the tests hold `Merger` against it.
std::size_t merge_plain(const Vocabulary& vocabulary, const std::uint8_t* bytes, std::size_t size, Id* ids);

// One pretoken among several that are merged together.
struct MergeJob {
    const std::uint8_t* bytes;
    std::size_t size;   // at least 1
    Id* ids;            // room for `size` ids
    std::size_t count;  // how many there are in the end
};

// The same result, quickly, with buffers that are kept from call to call. Not for two threads at once.
class Merger {
 public:
    explicit Merger(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

    // Writes the ids of bytes[0, size), size > 0, to `ids`, which has room for `size`; returns how many there are.
    std::size_t merge(const std::uint8_t* bytes, std::size_t size, Id* ids) {
        MergeJob job{bytes, size, ids, 0};
        merge(std::span(&job, 1));
        return job.count;
    }

    // The same for several. They take turns: while the memory that one pretoken's next pairs are looked up in is on its
    // way, the others are worked on.
    void merge(std::span<MergeJob> jobs);

 private:
    static constexpr std::size_t kShort = 64;  // symbols, a bit for each; what has more goes by a heap
    static constexpr std::size_t kLanes = 16;

    // A short pretoken at work. A token stands at the first symbol that it was made from; its bit in `live` is set.
    struct Lane {
        std::int32_t candidates[kShort];  // by place: rank << 6 | place of what merges with the next; or kNone
        Id symbols[kShort];
        std::uint64_t live;
        std::uint32_t padded;  // candidates up to here are set
        std::uint32_t place;   // whose pairs are still to be looked up; kShort for none
        MergeJob* job;
    };
    static constexpr std::int32_t kNone = 0x7FFFFFFF;

    Id whole_character(const MergeJob& job, std::size_t i, std::size_t& length) const;
    bool begin(Lane& lane, MergeJob& job) const;
    bool step(Lane& lane) const;
    std::size_t merge_long(const std::uint8_t* bytes, std::size_t size, Id* ids);

    const Vocabulary& vocabulary_;
    std::array<Lane, kLanes> lanes_;
    std::vector<Id> symbols_;                // merge_long: the id that begins at a byte
    std::vector<std::uint32_t> next_;        // where the next one begins
    std::vector<std::uint32_t> previous_;    // where the one before begins
    std::vector<std::uint64_t> candidates_;  // a heap of rank << 32 | place
};

}  // namespace bpe
