#include "encoder.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "threads.hpp"

namespace bpe {

namespace {

constexpr std::size_t kBatch = 256;  // pretokens that are scanned before any is looked up
static_assert(most_stored(kBatch) <= Store::kSlack);

}  // namespace

// What one call works with.
struct Encoder::Workspace {
    explicit Workspace(const Vocabulary& vocabulary) : merger(vocabulary) {}

    Merger merger;
    PretokenCache cache;
    // One batch: the pretokens, and what is found of each.
    std::uint64_t ends[kBatch];
    Pretoken pretokens[kBatch];
    Encoding found[kBatch];
    std::vector<Id> fresh = std::vector<Id>(kBatch * LongTable::kLongest);  // what merging makes of the missing ones
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
        encode_batch(text, begin, {workspace.ends, count}, workspace, ids);
        begin = workspace.ends[count - 1];
    }
}

// Pretokens that were cut elsewhere are laid side by side, and then are a text with known ends.
void Encoder::encode_pretokens(std::span<const Bytes> pretokens, IdBuffer& ids) const {
    const Loan workspace(*this);
    std::vector<std::uint8_t> text;
    std::vector<std::uint64_t> ends;
    for (const Bytes pretoken : pretokens) {
        if (pretoken.empty()) continue;
        text.insert(text.end(), pretoken.begin(), pretoken.end());
        ends.push_back(text.size());
    }
    std::size_t begin = 0;
    for (std::size_t first = 0; first < ends.size(); first += kBatch) {
        const auto batch = std::span(ends).subspan(first, std::min(kBatch, ends.size() - first));
        encode_batch(text, begin, batch, *workspace, ids);
        begin = batch.back();
    }
}

// Appends the ids of the pretokens of `text` that begin at `begin` and end at `ends`.
void Encoder::encode_batch(Bytes text, std::size_t begin, std::span<const std::uint64_t> ends, Workspace& workspace,
                           IdBuffer& ids) const {
    // 1. Sort the pretokens by length class, without a branch: which class the next one has cannot be predicted.
    std::uint32_t short_numbers[kBatch], medium_numbers[kBatch], long_numbers[kBatch];
    std::size_t shorts = 0, mediums = 0, longs = 0;
    std::size_t start = begin;
    for (std::uint32_t i = 0; i < ends.size(); ++i) {
        const std::size_t length = ends[i] - start;
        workspace.pretokens[i] = {text.data() + start, length, text.size() - start};
        short_numbers[shorts] = medium_numbers[mediums] = long_numbers[longs] = i;
        shorts += length <= ShortTable::kLongest;
        mediums += length > ShortTable::kLongest && length <= MediumTable::kLongest;
        longs += length > MediumTable::kLongest;
        start = ends[i];
    }

    // 2. Find the ids of each class.
    PretokenCache& cache = workspace.cache;
    look_up(cache.short_table, workspace, {short_numbers, shorts});
    look_up(cache.medium_table, workspace, {medium_numbers, mediums});
    look_up(cache.long_table, workspace, {long_numbers, longs});

    // 3. Write them, in order. Two ids are written always, and the end moves by as many as there are.
    ids.reserve(ends.back() - begin + Encoding::kInline);  // a byte makes one id at most
    Id* out = ids.end();
    for (std::size_t i = 0; i < ends.size(); ++i) {
        const Encoding encoding = workspace.found[i];
        const std::size_t count = encoding.count();
        if (count - 1 < Encoding::kInline) [[likely]] {
            out[0] = encoding.first();
            out[1] = encoding.second();
            out += count;
        } else if (count) {
            std::memcpy(out, cache.store.at(encoding.place()), count * sizeof(Id));
            out += count;
        } else {  // too long to be remembered
            out += encode_afresh(workspace.pretokens[i].span(), workspace.merger, out);
        }
    }
    ids.advance(static_cast<std::size_t>(out - ids.end()));
}

// Sets workspace.found of the pretokens with these numbers. All keys are made and their buckets asked for before the
// first is looked at, so that the waits for memory overlap.
template <class Table>
void Encoder::look_up(Table& table, Workspace& workspace, std::span<const std::uint32_t> numbers) const {
    typename Table::Key keys[kBatch];
    typename Table::Bucket* buckets[kBatch];
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        keys[i] = Table::key_of(workspace.pretokens[numbers[i]]);
        buckets[i] = &table.bucket(keys[i]);
        __builtin_prefetch(buckets[i]);
    }
    Store& store = workspace.cache.store;
    std::uint32_t missing[kBatch];
    std::size_t misses = 0;
    for (std::uint32_t i = 0; i < numbers.size(); ++i) {
        const Pretoken& pretoken = workspace.pretokens[numbers[i]];
        const Encoding found = Table::find(*buckets[i], keys[i], pretoken, store);
        workspace.found[numbers[i]] = found;
        missing[misses] = i;
        misses += found.count() == 0 && pretoken.length <= Table::kLongest;  // longer: encoded where it is written
    }
    if (!misses) return;

    // Encode what is missing, the whole pretoken first, as the reference does.
    std::uint64_t hashes[kBatch];
    for (std::size_t m = 0; m < misses; ++m) {
        const Bytes pretoken = workspace.pretokens[numbers[missing[m]]].span();
        hashes[m] = hash_bytes(pretoken.data(), pretoken.size());
        vocabulary_->prefetch_find(hashes[m]);
    }
    MergeJob jobs[kBatch];
    std::uint32_t of_job[kBatch];
    std::size_t merges = 0;
    Id* room = workspace.fresh.data();
    const auto remember = [&](std::uint32_t i, std::span<const Id> ids) {
        if (ids.size() > Encoding::kMostIds) return;
        const Pretoken& pretoken = workspace.pretokens[numbers[i]];
        Encoding& found = workspace.found[numbers[i]];
        found = Table::find(*buckets[i], keys[i], pretoken, store);  // it may have been missing twice
        if (!found.count()) found = Table::put(*buckets[i], keys[i], pretoken, ids, store);
    };
    for (std::size_t m = 0; m < misses; ++m) {
        const Bytes pretoken = workspace.pretokens[numbers[missing[m]]].span();
        const Id whole = vocabulary_->find(pretoken.data(), pretoken.size(), hashes[m]);
        if (whole != kNoId) {
            remember(missing[m], {&whole, 1});
            continue;
        }
        jobs[merges] = {pretoken.data(), pretoken.size(), room, 0};
        of_job[merges++] = missing[m];
        room += pretoken.size();
    }
    workspace.merger.merge({jobs, merges});
    for (std::size_t m = 0; m < merges; ++m) remember(of_job[m], {jobs[m].ids, jobs[m].count});
}

// The whole pretoken first, as the reference does, then merging. There must be room for pretoken.size() ids.
std::size_t Encoder::encode_afresh(Bytes pretoken, Merger& merger, Id* ids) const {
    const Id whole = vocabulary_->find(pretoken.data(), pretoken.size());
    if (whole == kNoId) return merger.merge(pretoken.data(), pretoken.size(), ids);
    *ids = whole;
    return 1;
}

void Encoder::encode_all(std::span<const Bytes> texts, const SpecialTokens* special, std::size_t threads, IdBuffer& ids,
                         std::vector<std::int64_t>& offsets) const {
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
    on_threads(std::min(threads, blocks.size()), [&](std::size_t) {
        for (std::size_t i; (i = next++) < blocks.size();) {
            Block& block = blocks[i];
            for (std::size_t text = block.first; text < block.last; ++text) {
                encode(texts[text], special, block.ids);
                offsets[text + 1] = static_cast<std::int64_t>(block.ids.size());  // within the block, for now
            }
        }
    });

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
