// Byte-pair encoding of pretokens.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/lanes.hpp"
#include "encode/vocab.hpp"

namespace bpe {

// The definition: start from the tokens of single bytes, without the bytes that have none; while some two neighbours
// merge into a token, merge those whose token has the lowest rank, the leftmost among equals. Quadratic; the tests hold
// `Merger` against it.
std::size_t merge_plain(const Vocabulary& vocabulary, const std::uint8_t* bytes, std::size_t size, Id* ids);

// One pretoken among several that are merged together.
struct MergeJob {
    const std::uint8_t* bytes;
    std::size_t size;
    Id* ids;            // room for `size` ids
    std::size_t count;  // how many there are in the end
};

// The same result, quickly, with buffers that are kept from call to call. Not for two threads at once.
class Merger {
 public:
    explicit Merger(const Vocabulary& vocabulary, const Kernel& kernel = kernels().front())
        : vocabulary_(vocabulary), merge_round_(kernel.merge_round), look_up_all_(kernel.look_up_all) {}

    // Writes the ids of bytes[0, size) to `ids`, which has room for `size`; returns how many there are.
    std::size_t merge(const std::uint8_t* bytes, std::size_t size, Id* ids) {
        MergeJob job{bytes, size, ids, 0};
        merge(std::span(&job, 1));
        return job.count;
    }

    // The same for several. They take turns: while the memory that one pretoken's next pairs are looked up in is on its
    // way, the others are worked on.
    void merge(std::span<MergeJob> jobs);

 private:
    void leave_unknown_bytes_out(std::span<MergeJob> jobs);
    Id whole_character(const MergeJob& job, std::size_t i, std::size_t& length) const;
    void prepare(MergeJob& job) const;
    void begin(Lane& lane, const MergeJob& job) const;
    static void finish(const Lane& lane, MergeJob& job);
    void merge_short(std::span<MergeJob> jobs);
    class Joined;
    std::size_t merge_windows(const std::uint8_t* bytes, std::size_t size, Id* ids);
    std::size_t merge_large_windows(const std::uint8_t* bytes, std::size_t size, Id* ids);
    std::size_t merge_by_heap(const std::uint8_t* bytes, std::size_t size, Id* ids);

    const Vocabulary& vocabulary_;
    MergeRound merge_round_;
    LookUpAll look_up_all_;
    std::array<Lane, kLanes> lanes_{};
    std::array<MergeJob*, kLanes> job_of_lane_{};
    std::vector<std::uint8_t> known_bytes_;  // of the jobs in which others stand
    std::vector<Id> window_ids_;             // of windows
    std::vector<Id> symbols_;                // merge_by_heap: the id that begins at a byte
    std::vector<std::uint32_t> next_;        // where the next one begins
    std::vector<std::uint32_t> previous_;    // where the one before begins
    std::vector<std::uint64_t> candidates_;  // a heap of rank << 32 | place
};

}  // namespace bpe
