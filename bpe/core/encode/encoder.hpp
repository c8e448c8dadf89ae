// Encoding text: scan it into pretokens, look each one up or merge it, write its ids.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/interrupt.hpp"
#include "base/memory.hpp"
#include "base/types.hpp"
#include "encode/added.hpp"
#include "encode/cache.hpp"
#include "encode/merge.hpp"
#include "encode/parallel.hpp"
#include "encode/vocab.hpp"
#include "kernels/kernels.hpp"
#include "split/scanned_splitter.hpp"
#include "split/splitter.hpp"
#include "text/normalizer.hpp"

namespace bpe {

using IdBuffer = Buffer<Id>;

// Any number of threads may use an encoder at once. Each call borrows a workspace (a cache and buffers) while it runs.
class Encoder {
 public:
    static constexpr std::size_t kCacheLimit = std::size_t{64} << 20;

    // All caches together take at most `cache_limit` bytes, but at least 2 MiB for each thread.
    // `normalizer` may be null.
    Encoder(std::shared_ptr<const Vocabulary> vocabulary, std::shared_ptr<const Splitter> splitter,
            std::shared_ptr<const Normalizer> normalizer = nullptr, const Kernel& kernel = chosen_kernel(),
            std::size_t cache_limit = kCacheLimit);
    ~Encoder();

    const Vocabulary& vocabulary() const { return *vocabulary_; }
    const Kernel& kernel() const { return kernel_; }

    // Sets the limit of all caches together, and empties them.
    void limit_cache(std::size_t bytes);

    struct Workspace;
    // Holds a workspace that no other call uses at the same time.
    class Loan {
     public:
        explicit Loan(const Encoder& encoder);
        Loan(const Loan&) = delete;
        Loan& operator=(const Loan&) = delete;
        ~Loan();
        Workspace& operator*() const { return *workspace_; }

        // Returns the ids of `text`, which are valid until the next call. Polls `interrupt`, which may be null.
        std::span<const Id> encode(Bytes text, const AddedTokens* added, Interrupt* interrupt = nullptr) const;
        // Makes work in this workspace poll `interrupt`, which may be null.
        void watch(Interrupt* interrupt) const;

     private:
        const Encoder& encoder_;
        std::unique_ptr<Workspace> workspace_;
        int exceptions_;  // in flight when the loan began
    };
    const Splitter& splitter() const { return *splitter_; }
    // Returns the normalizer, or null if text is not normalized.
    const Normalizer* normalizer() const { return normalizer_.get(); }
    // Returns the splitter if it is a hand-written scanner and text is not normalized, or null.
    const ScannedSplitter* scanned() const { return normalizer_ ? nullptr : scanned_; }

    // Appends the ids of `text` to `ids`. `added`, which may be null, cuts the text at its tokens. `start` says what
    // stands before the text. Polls `interrupt`, which may be null.
    void encode(Bytes text, const AddedTokens* added, IdBuffer& ids, Interrupt* interrupt = nullptr,
                Start start = Start::kText) const;

    // Encodes several texts on `threads` threads. Long texts are cut and spread over the threads as well.
    // Polls `interrupt`, which may be null.
    EncodedTexts encode_all(std::span<const Bytes> texts, const AddedTokens* added, std::size_t threads,
                            Interrupt* interrupt = nullptr) const;

    // Appends the ids of pretokens that lie side by side at the start of `text`, given their ends.
    void encode_pretokens(Bytes text, std::span<const std::uint64_t> ends, IdBuffer& ids) const;
    // Appends the ids of each of `pretokens`, which the caller has cut. Polls `interrupt`, which may be null.
    void encode_pretokens(std::span<const Bytes> pretokens, IdBuffer& ids, Interrupt* interrupt = nullptr) const;

 private:
    std::size_t share_of(std::size_t number) const;
    void encode_with(Workspace& workspace, Bytes text, Start start, const AddedTokens* added, IdBuffer& ids) const;
    void encode_normalized(Workspace& workspace, Bytes text, Start start, const AddedTokens* added,
                           IdBuffer& ids) const;
    void encode_part(Bytes text, Start start, Workspace& workspace, IdBuffer& ids) const;
    void encode_split(Bytes text, Start start, Workspace& workspace, IdBuffer& ids) const;
    void encode_pieces(Bytes text, std::span<const std::uint64_t> ends, Workspace& workspace, IdBuffer& ids) const;
    void encode_batch(const Batch& batch, Workspace& workspace, IdBuffer& ids) const;
    template <class Table>
    void look_up(Table& table, std::span<const std::uint32_t> numbers, const Batch& batch, Workspace& workspace) const;
    void encode_unseen(const Batch& batch, Workspace& workspace) const;
    void write(const Batch& batch, Workspace& workspace, IdBuffer& ids) const;
    void encode_cut(const Pretokens& pretokens, Workspace& workspace, IdBuffer& ids) const;
    void merge_unseen(Workspace& workspace, std::size_t jobs) const;
    std::size_t encode_afresh(Bytes pretoken, Workspace& workspace, Id* ids) const;

    std::shared_ptr<const Vocabulary> vocabulary_;
    std::shared_ptr<const Splitter> splitter_;
    std::shared_ptr<const Normalizer> normalizer_;
    const ScannedSplitter* scanned_;
    Kernel kernel_;
    std::atomic<std::size_t> cache_limit_;
    mutable std::size_t workspaces_ = 0;  // number of workspaces, under the mutex
    // Workspaces that are not on loan. The first can be taken without the lock.
    mutable std::atomic<Workspace*> first_idle_ = nullptr;
    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace bpe
