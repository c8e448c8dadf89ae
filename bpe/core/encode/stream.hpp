// A text that comes in pieces -> ids, each as soon as no more text can change it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "encode/cuts.hpp"
#include "encode/encoder.hpp"
#include "encode/special.hpp"

namespace bpe {

class Stream {
 public:
    // `special` are encoded as themselves, `forbidden` are refused; both may be null. All three are to outlive the
    // stream.
    Stream(const Encoder& encoder, const SpecialTokens* special, const SpecialTokens* forbidden)
        : encoder_(encoder), special_(special), forbidden_(forbidden) {}

    // Takes up more of the text and appends the ids that are certain now. A piece may end anywhere, even within a
    // character or a special token. If a forbidden token is complete with it, returns that and takes nothing up.
    std::optional<std::string> feed(Bytes piece, IdBuffer& ids);

    // The text ends here: appends the ids that are left. After that a new text may begin.
    void flush(IdBuffer& ids);

 private:
    void drop_what_is_done();
    std::size_t give_parts(IdBuffer& ids);
    void give_certain(Bytes part, IdBuffer& ids);
    bool worth_scanning(Bytes part);

    const Encoder& encoder_;
    const SpecialTokens* special_;
    const SpecialTokens* forbidden_;
    std::vector<std::uint8_t> text_;
    std::size_t begin_ = 0;     // in text_, of what is not encoded yet: a pretoken's start
    std::size_t searched_ = 0;  // in text_: before it no special token begins but those that were encoded
    std::size_t scanned_ = 0;   // bytes from begin_ on that were scanned in vain
    std::size_t seen_ = 0;      // bytes from begin_ on whose kinds were looked at
    Kind kind_ = Kind::kAny;    // of the last of them
    std::vector<std::uint64_t> edges_;
    std::vector<Bytes> pretokens_;
};

}  // namespace bpe
