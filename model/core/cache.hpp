// The keys and values of a batch of sequences, in the layout that the kernels read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/rounding.hpp"
#include "pages.hpp"

namespace model {

class Cache {
 public:
    Cache(CacheKind kind, std::size_t layers, std::size_t kv_heads, std::size_t head_dim, std::size_t sequences);
    Cache(const Cache&) = delete;

    // The keys and values of one sequence in one key-value head of one layer.
    struct Head {
        std::uint8_t *keys, *values;       // as AttentionKernel reads them
        float *key_scales, *value_scales;  // one per position, for kI8 only
    };

    CacheKind kind() const { return kind_; }
    std::size_t layers() const { return layers_; }
    std::size_t kv_heads() const { return kv_heads_; }
    std::size_t head_dim() const { return head_dim_; }
    std::size_t width() const { return width_; }  // of a value: head_dim, rounded up to a multiple of 16
    std::size_t key_width() const { return kind_ == CacheKind::kI8 ? rounded_up(head_dim_, 4) : head_dim_; }
    std::size_t sequences() const { return sequences_.size(); }
    std::size_t capacity() const;  // positions for which every sequence has room
    std::size_t bytes() const;
    // Returns the memory of a sequence with room for this many positions.
    std::size_t sequence_bytes(std::size_t capacity) const {
        return layers_ * kv_heads_ * head_bytes(rounded_up(capacity, kLanes));
    }
    std::size_t number_bytes() const;  // of one number of a key or value

    std::size_t capacity(std::size_t sequence) const { return sequences_[sequence].capacity; }

    // Makes room for `capacity` positions of each sequence, and keeps the first `filled` positions of each. Copies one
    // sequence at a time; when memory runs out, throws std::bad_alloc and loses nothing.
    void reserve(std::size_t capacity, std::span<const std::size_t> filled);

    // Makes room for exactly `capacity` positions, rounded up to whole blocks, of one sequence, and keeps the first
    // `filled`. With 0, gives its memory back. When memory runs out, throws std::bad_alloc and changes nothing.
    void resize(std::size_t sequence, std::size_t capacity, std::size_t filled);

    // Replaces the first positions of a sequence by the first `filled` of another, for which it must have room.
    void copy(std::size_t from, std::size_t to, std::size_t filled);

    // Keeps these sequences, in this order. A sequence that is named several times is copied. When memory runs out,
    // throws std::bad_alloc and changes nothing.
    void select(std::span<const std::size_t> sequences, std::span<const std::size_t> filled);

    Head head(std::size_t sequence, std::size_t layer, std::size_t kv_head) const;

    // Writes a key and a value, each [head_dim], at a position.
    void store(const Head& head, std::size_t position, const float* key, const float* value,
               const Kernel& kernel) const;

 private:
    void store_bytes(const Head& head, std::size_t position, const float* key, const float* value) const;

    struct Sequence {
        Pages memory;
        std::size_t capacity = 0;
    };

    std::size_t head_bytes(std::size_t capacity) const;
    Head head_in(const Sequence& sequence, std::size_t number) const;
    void copy_filled(const Sequence& from, std::size_t filled, Sequence& to) const;
    Sequence copied(const Sequence& from, std::size_t filled, std::size_t capacity) const;

    CacheKind kind_;
    std::size_t layers_, kv_heads_, head_dim_, width_;
    std::vector<Sequence> sequences_;
};

}  // namespace model
