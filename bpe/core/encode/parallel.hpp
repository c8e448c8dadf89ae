// Cutting texts into pieces for several threads, and joining the ids of the pieces.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <type_traits>
#include <vector>

#include "base/memory.hpp"
#include "base/threads.hpp"
#include "base/types.hpp"

namespace bpe {

// A text, or a part of one that can be encoded by itself.
struct Piece {
    Bytes bytes;
    std::size_t text;  // the number of the text
    bool first;        // whether it is the first piece of the text
    bool last;         // whether it is the last piece of the text
};

// Consecutive pieces that one thread encodes.
struct Block {
    std::span<const Piece> pieces;
    const Id* ids = nullptr;
    std::size_t count = 0;
    std::size_t before = 0;  // ids of all earlier blocks
};

// How texts are distributed over threads.
class Plan {
 public:
    // Returns a place at or after `position` where a text may be cut, or text.size() if it knows none.
    using NextCut = std::function<std::size_t(Bytes text, std::size_t position)>;

    Plan(std::span<const Bytes> texts, const NextCut& next_cut, std::size_t threads);

    std::span<Block> blocks() { return blocks_; }

 private:
    std::vector<Piece> pieces_;
    std::vector<Block> blocks_;
};

// The ids that one thread has made, in large pages, until the ids of all threads are joined.
class IdStore {
 public:
    // Copies ids and returns the copy, which lives as long as the store.
    const Id* keep(const Id* ids, std::size_t count);

 private:
    static constexpr std::size_t kChunk = std::size_t{1} << 20;  // ids
    std::vector<ZeroedMemory> chunks_;
    std::size_t left_ = 0;
    Id* next_ = nullptr;
};

// The ids of several texts, still in blocks.
class EncodedTexts {
 public:
    EncodedTexts(Plan plan, std::vector<IdStore> stores, std::vector<std::int64_t> offsets, std::size_t threads);

    std::size_t size() const { return static_cast<std::size_t>(offsets_.back()); }

    // Returns where the ids of each text begin, and at the end the number of all ids.
    std::span<const std::int64_t> offsets() const { return offsets_; }

    // Writes all ids to `out`, which has room for size() ids. Truncates ids that are too large for T.
    template <class T>
    void copy_to(T* out) {
        std::atomic<std::size_t> next = 0;
        const std::span<Block> blocks = plan_.blocks();
        on_threads(std::min(threads_, blocks.size()), [&](std::size_t) {
            for (std::size_t i; (i = next++) < blocks.size();) {
                const Block& block = blocks[i];
                if (!block.count) continue;
                if constexpr (std::is_same_v<T, Id>) {
                    std::memcpy(out + block.before, block.ids, block.count * sizeof(Id));
                } else {
                    std::transform(block.ids, block.ids + block.count, out + block.before,
                                   [](Id id) { return static_cast<T>(id); });
                }
            }
        });
    }

 private:
    Plan plan_;
    std::vector<IdStore> stores_;
    std::vector<std::int64_t> offsets_;
    std::size_t threads_;
};

}  // namespace bpe
