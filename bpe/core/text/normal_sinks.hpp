// What a step of a normalizer writes to: bytes alone, or bytes with their origins. A step is written once, as a
// template over the sink.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "text/code_points.hpp"
#include "text/normalizer.hpp"
#include "text/unicode.hpp"

namespace bpe {

// A character whose origin is no byte of the text: tokenizers gives it the empty range at the start of the text.
inline constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);

class BytesSink {
 public:
    static constexpr bool kHasOrigins = false;

    explicit BytesSink(Buffer<std::uint8_t>& out) : out_(out) {}

    // Copies text[begin, end) unchanged.
    void keep(Bytes text, std::size_t begin, std::size_t end) { out_.append(text.data() + begin, end - begin); }
    // Writes bytes that have the origin of text[from].
    void put(Bytes bytes, std::size_t) { out_.append(bytes.data(), bytes.size()); }
    void put(std::uint32_t value, std::size_t) {
        out_.reserve(4);
        out_.advance(write_utf8(value, out_.end()));
    }

 private:
    Buffer<std::uint8_t>& out_;
};

class OriginsSink {
 public:
    static constexpr bool kHasOrigins = true;

    OriginsSink(std::span<const Range> origins, NormalText& out) : origins_(origins), out_(out) {}

    void keep(Bytes text, std::size_t begin, std::size_t end) {
        out_.bytes.append(text.data() + begin, end - begin);
        out_.origins.append(origins_.data() + begin, end - begin);
    }
    void put(Bytes bytes, std::size_t from) {
        out_.bytes.append(bytes.data(), bytes.size());
        const Range origin = from == kNowhere ? Range{0, 0} : origins_[from];
        for (std::size_t i = 0; i < bytes.size(); ++i) out_.origins.push(origin);
    }
    void put(std::uint32_t value, std::size_t from) {
        std::uint8_t bytes[4];
        put(Bytes(bytes, write_utf8(value, bytes)), from);
    }

 private:
    std::span<const Range> origins_;
    NormalText& out_;
};

// Writes characters with the changes that tokenizers gives them, from which their origins follow.
template <class Sink>
class ChangeSink {
 public:
    // `at` is the first character of the text that the changes count from.
    ChangeSink(Bytes text, std::size_t at, Sink& sink) : text_(text), at_(at), sink_(sink) {}

    // Writes a character. `change` is 0 if it replaces a character of the text, -n if it also replaces the n characters
    // after that, and 1 if it is new.
    void put(std::uint32_t value, std::int64_t change) {
        if constexpr (!Sink::kHasOrigins) {
            sink_.put(value, 0);
        } else if (change > 0) {
            sink_.put(value, at_ == 0 ? kNowhere : at_ - 1);
        } else {
            sink_.put(value, at_);
            for (; change <= 0 && at_ < text_.size(); ++change) at_ += code_point_at(text_, at_).length;
        }
    }

    // Copies text[begin, end), whose characters replace as many.
    void keep(std::size_t begin, std::size_t end) {
        if (!Sink::kHasOrigins || begin == at_) {
            sink_.keep(text_, begin, end);
            at_ = end;
            return;
        }
        for (; begin < end; begin += code_point_at(text_, begin).length) {
            const std::size_t length = code_point_at(text_, begin).length;
            sink_.put(text_.subspan(begin, length), at_);
            at_ += code_point_at(text_, at_).length;
        }
    }

 private:
    Bytes text_;
    std::size_t at_;
    Sink& sink_;
};

// Implements both variants of NormalStep::apply with `run` of the derived class:
//
//     template <class Sink> bool run(Bytes text, bool at_start, Sink& sink) const;
template <class Derived>
class SinkStep : public NormalStep {
 public:
    bool apply(Bytes text, bool at_start, Buffer<std::uint8_t>& out) const final {
        BytesSink sink(out);
        return static_cast<const Derived*>(this)->run(text, at_start, sink);
    }
    bool apply(NormalizedText text, bool at_start, NormalText& out) const final {
        OriginsSink sink(text.origins, out);
        return static_cast<const Derived*>(this)->run(text.text, at_start, sink);
    }
};

}  // namespace bpe
