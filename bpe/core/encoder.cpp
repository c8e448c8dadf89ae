#include "encoder.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <thread>

namespace bpe {

namespace {

constexpr std::size_t kBatch = 256;  // pretokens that are scanned before any is looked up

}  // namespace

void PretokenCache::make_key(const std::uint8_t* bytes, std::size_t size, std::uint64_t key[2]) {
    std::uint8_t padded[16] = {};
    std::memcpy(padded, bytes, size);
    padded[15] = static_cast<std::uint8_t>(size);
    std::memcpy(key, padded, 16);
}

void PretokenCache::put(Slot& slot, const std::uint64_t key[2], const Id* ids, std::size_t count) {
    if (count > 3 && longer_.size() + count > kLonger) {  // full: begin anew, so that memory stays bounded
        longer_.clear();
        std::fill(slots_.begin(), slots_.end(), Slot{});
    }
    slot.key[0] = key[0];
    slot.key[1] = key[1];
    slot.count = static_cast<std::uint32_t>(count);
    if (count <= 3) {
        std::copy(ids, ids + count, slot.ids);
    } else {
        slot.ids[0] = static_cast<Id>(longer_.size());
        longer_.insert(longer_.end(), ids, ids + count);
    }
}

struct Encoder::Workspace {
    explicit Workspace(const Vocabulary& vocabulary) : merger(vocabulary) {}
    Merger merger;
    PretokenCache cache;
    std::uint64_t ends[kBatch];
};

// Holds a workspace that no other call uses.
class Encoder::Loan {
   public:
    explicit Loan(const Encoder& encoder) : encoder_(encoder) {
        {
            const std::lock_guard lock(encoder.mutex_);
            if (!encoder.idle_.empty()) {
                workspace_ = std::move(encoder.idle_.back());
                encoder.idle_.pop_back();
            }
        }
        if (!workspace_) workspace_ = std::make_unique<Workspace>(*encoder.vocabulary_);
    }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    ~Loan() {
        const std::lock_guard lock(encoder_.mutex_);
        encoder_.idle_.push_back(std::move(workspace_));
    }
    Workspace& operator*() const { return *workspace_; }

   private:
    const Encoder& encoder_;
    std::unique_ptr<Workspace> workspace_;
};

Encoder::Encoder(std::shared_ptr<const Vocabulary> vocabulary, Pattern pattern)
    : vocabulary_(std::move(vocabulary)), pattern_(pattern) {}

Encoder::~Encoder() = default;

void Encoder::encode(Bytes text, const SpecialTokens* special, IdBuffer& ids) const {
    const Loan workspace(*this);
    if (!special || special->empty()) return encode_part(text, *workspace, ids);
    for (std::size_t begin = 0;;) {
        const SpecialTokens::Match match = special->find(text, begin);
        encode_part(text.subspan(begin, match.begin - begin), *workspace, ids);
        if (match.begin == text.size()) return;
        ids.push(match.id);
        begin = match.end;
    }
}

void Encoder::encode_part(Bytes text, Workspace& workspace, IdBuffer& ids) const {
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t count = scan(pattern_, text.data(), begin, text.size(), workspace.ends, kBatch);
        ids.reserve(workspace.ends[count - 1] - begin);  // a byte makes one id at most
        for (std::size_t i = 0; i < count; ++i) {
            encode_pretoken(text.subspan(begin, workspace.ends[i] - begin), workspace, ids);
            begin = workspace.ends[i];
        }
    }
}

void Encoder::encode_pretokens(std::span<const Bytes> pretokens, IdBuffer& ids) const {
    const Loan workspace(*this);
    for (const Bytes pretoken : pretokens) {
        if (pretoken.empty()) continue;
        ids.reserve(pretoken.size());
        encode_pretoken(pretoken, *workspace, ids);
    }
}

// The whole pretoken first, as the reference does, then merging. There must be room for pretoken.size() ids.
void Encoder::encode_pretoken(Bytes pretoken, Workspace& workspace, IdBuffer& ids) const {
    const auto encode_afresh = [&]() -> std::size_t {
        const Id whole = vocabulary_->find(pretoken.data(), pretoken.size());
        if (whole == kNoId) return workspace.merger.merge(pretoken.data(), pretoken.size(), ids.end());
        *ids.end() = whole;
        return 1;
    };
    if (pretoken.size() > PretokenCache::kLongestKey) return ids.advance(encode_afresh());
    std::uint64_t key[2];
    PretokenCache::make_key(pretoken.data(), pretoken.size(), key);
    PretokenCache::Slot& slot = workspace.cache.slot_of(key);
    if (slot.key[0] == key[0] && slot.key[1] == key[1]) {
        const Id* known = workspace.cache.ids_of(slot);
        std::copy(known, known + slot.count, ids.end());
        return ids.advance(slot.count);
    }
    const std::size_t count = encode_afresh();
    workspace.cache.put(slot, key, ids.end(), count);
    ids.advance(count);
}

void Encoder::encode_all(std::span<const Bytes> texts, const SpecialTokens* special, std::size_t threads,
                         IdBuffer& ids, std::vector<std::int64_t>& offsets) const {
    // Neighbouring texts go together in blocks of about this many bytes, each block to whichever thread is free.
    constexpr std::size_t kBlock = 1 << 20;
    struct Block {
        std::size_t first;  // text
        std::size_t last;   // one past
        IdBuffer ids;
    };
    std::vector<Block> blocks;
    for (std::size_t first = 0; first < texts.size();) {
        std::size_t last = first;
        for (std::size_t bytes = 0; last < texts.size() && bytes < kBlock; ++last) bytes += texts[last].size();
        blocks.push_back({first, last, {}});
        first = last;
    }

    offsets.assign(texts.size() + 1, 0);
    std::atomic<std::size_t> next = 0;
    std::mutex mutex;
    std::exception_ptr failure;
    const auto work = [&] {
        try {
            for (std::size_t i; (i = next++) < blocks.size();) {
                Block& block = blocks[i];
                for (std::size_t text = block.first; text < block.last; ++text) {
                    encode(texts[text], special, block.ids);
                    offsets[text + 1] = static_cast<std::int64_t>(block.ids.size());  // within the block, for now
                }
            }
        } catch (...) {
            const std::lock_guard lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    for (std::size_t i = 1; i < std::min(threads, blocks.size()); ++i) helpers.emplace_back(work);
    work();
    for (std::thread& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);

    if (blocks.size() == 1) {
        ids = std::move(blocks[0].ids);
        return;
    }
    std::size_t total = 0;
    for (const Block& block : blocks) total += block.ids.size();
    ids.reserve(total);
    for (Block& block : blocks) {
        const auto before = static_cast<std::int64_t>(ids.size());
        for (std::size_t text = block.first; text < block.last; ++text) offsets[text + 1] += before;
        if (block.ids.size()) std::memcpy(ids.end(), block.ids.data(), block.ids.size() * sizeof(Id));
        ids.advance(block.ids.size());
        block.ids = IdBuffer{};
    }
}

}  // namespace bpe
