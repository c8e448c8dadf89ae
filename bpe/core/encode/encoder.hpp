// Text -> ids: scan, look up or merge each pretoken, write its ids.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <vector>

#include "encode/cache.hpp"
#include "encode/merge.hpp"
#include "encode/parallel.hpp"
#include "kernels/scan.hpp"
#include "encode/special.hpp"
#include "encode/vocab.hpp"

namespace bpe {

using Bytes = std::span<const std::uint8_t>;

using IdBuffer = Buffer<Id>;

// Any number of threads may call it at once: each call borrows a workspace (cache and buffers) for as long as it runs.
class Encoder {
 public:
    static constexpr std::size_t kCacheLimit = std::size_t{64} << 20;

    // A pattern without a scanner of its own has none here; then only `encode_pretokens` may be called. What is
    // remembered of the pretokens seen takes at most `cache_limit` bytes in all, and 2 MiB for each thread at least.
    Encoder(std::shared_ptr<const Vocabulary> vocabulary, Pattern pattern, const Kernel& kernel = kernels().front(),
            std::size_t cache_limit = kCacheLimit);
    ~Encoder();

    const Vocabulary& vocabulary() const { return *vocabulary_; }
    const Kernel& kernel() const { return kernel_; }

    // From now on; what is remembered is forgotten.
    void limit_cache(std::size_t bytes);

    // A workspace that no other call uses, for as long as this lives.
    struct Workspace;
    class Loan {
     public:
        explicit Loan(const Encoder& encoder);
        Loan(const Loan&) = delete;
        Loan& operator=(const Loan&) = delete;
        ~Loan();
        Workspace& operator*() const { return *workspace_; }

        // The ids of `text`, which stay until the next call.
        std::span<const Id> encode(Bytes text, const SpecialTokens* special) const;

     private:
        const Encoder& encoder_;
        std::unique_ptr<Workspace> workspace_;
    };
    Pattern pattern() const { return pattern_; }

    // Appends the ids of `text` to `ids`. Where `special` (may be null) finds its tokens, the text is cut, and their
    // ids stand between those of the parts; each part is encoded as if it were alone.
    void encode(Bytes text, const SpecialTokens* special, IdBuffer& ids) const;

    // The same for several texts, on `threads` threads, over which long texts are spread as well.
    EncodedTexts encode_all(std::span<const Bytes> texts, const SpecialTokens* special, std::size_t threads) const;

    // Appends the ids of each of `pretokens`, whatever pattern cut them.
    void encode_pretokens(std::span<const Bytes> pretokens, IdBuffer& ids) const;

 private:
    std::size_t share_of(std::size_t number) const;
    void encode_with(Workspace& workspace, Bytes text, const SpecialTokens* special, IdBuffer& ids) const;
    void encode_part(Bytes text, Workspace& workspace, IdBuffer& ids) const;
    void encode_pieces(Bytes text, std::span<const std::uint64_t> ends, Workspace& workspace, IdBuffer& ids) const;
    void encode_batch(const Batch& batch, Workspace& workspace, IdBuffer& ids) const;
    template <class Table>
    void look_up(Table& table, std::span<const std::uint32_t> numbers, const Batch& batch, Workspace& workspace) const;
    void encode_unseen(const Batch& batch, Workspace& workspace) const;
    void write(const Batch& batch, Workspace& workspace, IdBuffer& ids) const;
    std::size_t encode_afresh(Bytes pretoken, Merger& merger, Id* ids) const;

    std::shared_ptr<const Vocabulary> vocabulary_;
    Pattern pattern_;
    Kernel kernel_;
    std::atomic<std::size_t> cache_limit_;
    mutable std::size_t workspaces_ = 0;  // how many there are, under the mutex
    // Workspaces that nobody uses. The first can be had without the lock.
    mutable std::atomic<Workspace*> first_idle_ = nullptr;
    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace bpe
