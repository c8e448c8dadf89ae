// The ids of a pretoken in one word, and where they are kept if they do not fit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/memory.hpp"
#include "base/types.hpp"
#include "kernels/front.hpp"

namespace bpe {

// One block of zeroed memory that is handed out in parts. The system provides memory page by page as it is touched, so
// an encoder that sees little text uses little memory and starts at once (see ZeroedArray).
class CacheMemory {
 public:
    explicit CacheMemory(std::size_t bytes) : memory_(bytes) {}
    // The size of every part but the last must be a multiple of 128, so that no entry spans two cache lines.
    template <class T>
    T* take(std::size_t count) {
        used_ += count * sizeof(T);
        return reinterpret_cast<T*>(memory_.data() + used_ - count * sizeof(T));
    }

 private:
    ZeroedArray<std::byte> memory_;
    std::size_t used_ = 0;
};

// The ids of a pretoken in one word, so that most can be written without following a pointer. Inline ids:
//   bits 0..1     number of ids, 1 to 3
//   bits 2..61    up to three ids of 20 bits
// Ids in the store:
//   bits 0..1     0
//   bits 2..9     number of ids
//   bits 10..63   place of the first id in the store, never 0
// A word of 0 means that the pretoken is unknown. The kernels of front.hpp write inline ids.
class Encoding {
 public:
    static constexpr std::size_t kMostIds = 255;

    Encoding() = default;
    explicit Encoding(std::uint64_t bits) : bits_(bits) {}
    static Encoding of(std::span<const Id> ids) {
        std::uint64_t bits = ids.size();
        for (std::size_t i = 0; i < ids.size(); ++i) bits |= std::uint64_t{ids[i]} << (2 + kInlineBits * i);
        return Encoding(bits);
    }
    static Encoding stored(std::uint64_t place, std::size_t count) { return Encoding(place << 10 | count << 2); }
    static bool fit_into_a_word(std::span<const Id> ids) {
        if (ids.size() > kInlineIds) return false;
        return std::all_of(ids.begin(), ids.end(), [](Id id) { return id >> kInlineBits == 0; });
    }

    std::uint64_t bits() const { return bits_; }
    bool known() const { return bits_ != 0; }
    bool is_inline() const { return inline_count() != 0; }
    bool is_stored() const { return known() && !is_inline(); }
    std::size_t inline_count() const { return bits_ & 3; }
    Id inline_id(std::size_t i) const { return bits_ >> (2 + kInlineBits * i) & ((1u << kInlineBits) - 1); }
    std::size_t stored_count() const { return bits_ >> 2 & 0xFF; }
    std::uint64_t place() const { return bits_ >> 10; }

    // Returns this encoding if `condition`, else an unknown one. Does not branch.
    Encoding where(bool condition) const { return Encoding(bits_ & -std::uint64_t{condition}); }
    friend Encoding operator|(Encoding a, Encoding b) { return Encoding(a.bits_ | b.bits_); }

 private:
    std::uint64_t bits_ = 0;
};

// Where the tables keep what does not fit into their entries: a ring in which new ids overwrite the oldest. Places
// count all ids ever stored, so a place shows whether its ids are still there.
class EncodingStore {
 public:
    EncodingStore(CacheMemory& memory, std::size_t size)
        : ids_(memory.take<Id>(size)), size_(size - kReadBeyond), head_(size_) {}

    // Places found from now on stay valid until the next call.
    void begin_batch() { batch_ = head_; }

    bool holds(Encoding encoding) const { return encoding.is_inline() || holds(encoding.place()); }
    // Returns the ids at a place. Valid if the place is held; otherwise only good for a prefetch.
    const Id* at(std::uint64_t place) const {
        const std::uint64_t age = std::min<std::uint64_t>(head_ - place, size_);
        return ids_ + (age <= next_ ? next_ - age : next_ + size_ - age);
    }

    // Stores ids. Returns an unknown encoding if the batch has already added as much as it may.
    Encoding keep(std::span<const Id> ids) {
        if (Encoding::fit_into_a_word(ids)) return Encoding::of(ids);
        Id* out = take(ids.size());
        if (!out) return {};
        std::copy(ids.begin(), ids.end(), out);
        return Encoding::stored(head_ - ids.size(), ids.size());
    }

    // Stores the ids, then the length of the text, then the text. The result has the place of the ids even if they
    // would fit into a word.
    Encoding keep_with_text(std::span<const Id> ids, Bytes text) {
        const std::size_t count = ids.size() + 1 + (text.size() + sizeof(Id) - 1) / sizeof(Id);
        Id* out = take(count);
        if (!out) return {};
        out = std::copy(ids.begin(), ids.end(), out);
        *out = static_cast<Id>(text.size());
        std::memcpy(out + 1, text.data(), text.size());
        return Encoding::stored(head_ - count, ids.size());
    }
    // Checks a result of keep_with_text. Returns it if it is still held and has this text, with inline ids if they fit.
    // Otherwise returns an unknown encoding.
    Encoding with_text(Encoding kept, Bytes text) const {
        if (!kept.known() || !holds(kept.place())) return {};
        const std::span<const Id> ids(at(kept.place()), kept.stored_count());
        const Id* length = ids.data() + ids.size();
        if (*length != text.size() || std::memcmp(length + 1, text.data(), text.size()) != 0) return {};
        return Encoding::fit_into_a_word(ids) ? Encoding::of(ids) : kept;
    }

 private:
    static constexpr std::size_t kReadBeyond = 4;  // ids are read four by four

    // The number of ids that a batch may add.
    std::size_t slack() const { return size_ / 8; }
    // Older ids may be overwritten before the batch ends.
    bool holds(std::uint64_t place) const { return head_ - place <= size_ - slack(); }

    // Returns room for `count` contiguous ids, or null if the batch may not add as many.
    Id* take(std::size_t count) {
        const std::size_t left = size_ - next_;
        const bool begins_again = left < count;
        const std::uint64_t head = head_ + (begins_again ? left : 0) + count;
        if (head - batch_ > slack()) return nullptr;
        head_ = head;
        next_ = (begins_again ? 0 : next_) + count;
        return ids_ + next_ - count;
    }

    Id* ids_;
    std::size_t size_;
    std::size_t next_ = 0;     // index of the next id
    std::uint64_t head_;       // its place; starts at size_, so that place 0, of empty entries, is never held
    std::uint64_t batch_ = 0;  // the place where the batch began
};

}  // namespace bpe
