// Encoding a text that arrives in pieces. Each id is given as soon as no further text can change it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "encode/added.hpp"
#include "encode/encoder.hpp"
#include "encode/special.hpp"
#include "split/cuts.hpp"

namespace bpe {

class Stream {
 public:
    // Encodes the tokens in `added` as themselves and refuses those in `forbidden`. Both may be null. All three
    // arguments must outlive the stream.
    Stream(const Encoder& encoder, const AddedTokens* added, const SpecialTokens* forbidden)
        : encoder_(encoder), added_(added && !added->empty() ? added : nullptr), forbidden_(forbidden) {}

    // Adds a piece of the text and appends the ids that are certain now. A piece may end anywhere, even within a
    // character or a special token. If the piece completes a forbidden token, returns that token and does not add the
    // piece. Polls `interrupt`, which may be null; after an exception, the piece is not added either.
    std::optional<std::string> feed(Bytes piece, IdBuffer& ids, Interrupt* interrupt = nullptr);

    // Ends the text and appends the remaining ids. A new text may begin after that. Polls `interrupt`, as `feed` does.
    void flush(IdBuffer& ids, Interrupt* interrupt = nullptr);

 private:
    // What `feed` changes besides appending to the text.
    struct Progress {
        std::size_t begin = 0;       // in text_: the start of the first pretoken that is not encoded yet
        std::size_t searched = 0;    // in text_: all plain tokens that begin before it have been encoded
        std::size_t scanned = 0;     // bytes from `begin` on that have been scanned without a certain pretoken
        std::size_t seen = 0;        // bytes from `begin` on whose kinds are known
        Kind kind = Kind::kAny;      // the kind of the last of them
        Start start = Start::kText;  // what stands before `begin`
    };

    std::optional<std::string> add(Bytes piece, IdBuffer& ids);
    void drop_what_is_done();
    bool reads_ahead() const;
    void give_before_a_cut(IdBuffer& ids);
    std::size_t give_parts(bool is_end, IdBuffer& ids);
    void give_certain(Bytes part, IdBuffer& ids);
    bool worth_scanning(Bytes part);

    const Encoder& encoder_;
    const AddedTokens* added_;
    const SpecialTokens* forbidden_;
    std::vector<std::uint8_t> text_;
    Progress at_;
    Interrupt* interrupt_ = nullptr;
    std::vector<std::uint64_t> edges_;
    std::vector<Bytes> pretokens_;
};

}  // namespace bpe
