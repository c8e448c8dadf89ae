// The keys and values of texts, in the layout that the kernels read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kernels.hpp"
#include "pages.hpp"

namespace model {

class Cache {
 public:
    Cache(CacheKind kind, std::size_t layers, std::size_t kv_heads, std::size_t head_dim, std::size_t texts);
    Cache(const Cache&) = delete;

    // What one key-value head of one layer has of a text.
    struct Head {
        std::uint8_t *keys, *values;       // [blocks, head_dim, 16]; [positions, width]
        float *key_scales, *value_scales;  // of each position, for kI8
    };

    CacheKind kind() const { return kind_; }
    std::size_t layers() const { return layers_; }
    std::size_t kv_heads() const { return kv_heads_; }
    std::size_t head_dim() const { return head_dim_; }
    std::size_t width() const { return width_; }  // head_dim, up to a multiple of 16
    std::size_t texts() const { return texts_.size(); }
    std::size_t capacity() const;  // positions of each text
    std::size_t bytes() const;

    // Makes room for `capacity` positions of each text; `filled` of each are kept. One text at a time is in memory
    // twice; where there is no memory for that, nothing is lost.
    void reserve(std::size_t capacity, std::span<const std::size_t> filled);

    // Keeps these texts in this order; one that is named several times is copied. Strong guarantee.
    void select(std::span<const std::size_t> texts, std::span<const std::size_t> filled);

    Head head(std::size_t text, std::size_t layer, std::size_t kv_head) const;

    // Writes a key and a value [head_dim].
    void store(const Head& head, std::size_t position, const float* key, const float* value,
               const Kernel& kernel) const;

 private:
    struct Text {
        Pages memory;
        std::size_t capacity = 0;
    };

    std::size_t number_bytes() const { return kind_ == CacheKind::kI8 ? 1 : 2; }
    std::size_t head_bytes(std::size_t capacity) const;
    std::size_t text_bytes(std::size_t capacity) const { return layers_ * kv_heads_ * head_bytes(capacity); }
    Head head_in(const Text& text, std::size_t number) const;
    Text copied(const Text& from, std::size_t filled, std::size_t capacity) const;

    CacheKind kind_;
    std::size_t layers_, kv_heads_, head_dim_, width_;
    std::vector<Text> texts_;
};

}  // namespace model
