// Byte-pair encoding of pretokens.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/interrupt.hpp"
#include "base/types.hpp"
#include "encode/vocab.hpp"
#include "kernels/kernels.hpp"
#include "kernels/lanes.hpp"

namespace bpe {

// Encodes a pretoken by the definition of byte-pair encoding: start from the tokens of the single bytes and leave out
// the bytes that have none; while two neighbours merge into a token, merge the two whose token has the lowest rank, the
// leftmost among equals. Writes the ids to `ids` and returns how many there are. Takes quadratic time and is the tests'
// reference for `Merger`.
std::size_t merge_plain(const Vocabulary& vocabulary, const std::uint8_t* bytes, std::size_t size, Id* ids);

// One of several pretokens that are merged together.
struct MergeJob {
    const std::uint8_t* bytes;
    std::size_t size;
    Id* ids;            // the result, with room for `size` ids
    std::size_t count;  // ids in the result
};

// Gives the same result as merge_plain, fast. It reuses its buffers, so only one thread may use it at a time.
class Merger {
 public:
    explicit Merger(const Vocabulary& vocabulary, const Kernel& kernel = chosen_kernel())
        : vocabulary_(vocabulary), merge_round_(kernel.merge_round) {}

    // Polls `interrupt`, which may be null, while it merges a long pretoken.
    void watch(Interrupt* interrupt) { interrupt_ = interrupt; }

    // Writes the ids of bytes[0, size) to `ids`, which has room for `size`, and returns how many there are.
    std::size_t merge(const std::uint8_t* bytes, std::size_t size, Id* ids) {
        MergeJob job{bytes, size, ids, 0};
        merge(std::span(&job, 1));
        return job.count;
    }

    // Merges several pretokens, which take turns: while the memory for the next lookup of one pretoken is on its way,
    // the others are worked on.
    void merge(std::span<MergeJob> jobs);

 private:
    void leave_unknown_bytes_out(std::span<MergeJob> jobs);
    Id whole_character(const MergeJob& job, std::size_t i, std::size_t& length) const;
    void prepare(MergeJob& job) const;
    void begin(Lane& lane, const MergeJob& job) const;
    static void finish(const Lane& lane, MergeJob& job);
    void merge_short(std::span<MergeJob> jobs);
    class JoinedWindows;
    std::size_t merge_windows(const std::uint8_t* bytes, std::size_t size, Id* ids);
    std::size_t merge_large_windows(const std::uint8_t* bytes, std::size_t size, Id* ids);
    std::size_t merge_by_heap(const std::uint8_t* bytes, std::size_t size, Id* ids);

    void poll() const {
        if (interrupt_) interrupt_->poll();
    }

    const Vocabulary& vocabulary_;
    Interrupt* interrupt_ = nullptr;
    MergeRound merge_round_;
    std::array<Lane, kLanes> lanes_{};
    std::array<MergeJob*, kLanes> job_of_lane_{};
    std::vector<std::uint8_t> known_bytes_;  // of the jobs that contain bytes without a token
    std::vector<Id> window_ids_;             // merge_windows and merge_large_windows: the ids of windows
    std::vector<Id> symbols_;                // merge_by_heap: the id of the token that begins at a byte
    std::vector<std::uint32_t> next_;        // where the next token begins
    std::vector<std::uint32_t> previous_;    // where the token before begins
    std::vector<std::uint64_t> candidates_;  // a heap of rank << 32 | place
};

}  // namespace bpe
